"""What the rules promise, for types that nobody thought of."""

from typing import Any

from hypothesis import find, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from tests.contract.evolutions import built, changed, decodes, shapes, values, verdict

VALUES = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), st.tuples(shapes(), st.booleans()), min_size=1, max_size=3
).map(lambda fields: ("part", fields))


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[Any, Any]:
    """A type before and after one change or two."""
    before = after = draw(VALUES)
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        after = draw(changed(after))
    return built(before), built(after)


@settings(max_examples=300)
@given(evolutions(), st.data())
def test_compatible_types_decode_each_others_values(pair: tuple[Any, Any], data: st.DataObject) -> None:
    """Whatever changed: if no rule is broken, old types take new values and new types old ones."""
    old, new = pair
    if verdict(old, new):
        return
    assert decodes(data.draw(values(inspect.type_info(new))), old)
    assert decodes(data.draw(values(inspect.type_info(old))), new)


def test_both_verdicts_are_tried() -> None:
    """Among types made at random are real changes that break nothing, and such that break something."""
    assert find(evolutions(), lambda pair: not verdict(*pair) and len(fields(pair[1])) > len(fields(pair[0])))
    assert find(evolutions(), lambda pair: bool(verdict(*pair)))


def fields(kind: Any) -> tuple[str, ...]:
    """The names of the fields of *kind*."""
    names: tuple[str, ...] = kind.__struct_fields__
    return names
