"""Types as they may change from one release to the next, for the checks of compatibility."""

from itertools import count
from typing import Any, Union

import msgspec
import orjson
from hypothesis import strategies as st
from msgspec import inspect

from pipeline.contracts.compatibility import closed, compare
from pipeline.contracts.schemas import schema
from pipeline.events.wire import UNKNOWN

__all__ = [
    "built",
    "changed",
    "decodes",
    "listed",
    "mapped",
    "maybe",
    "members",
    "shapes",
    "struct",
    "values",
    "verdict",
]

Struct = type[msgspec.Struct]


def struct(name: str = "Value", /, *, tag: str | None = None, strict: bool = False, **fields: Any) -> Struct:
    """A struct of *fields*: a type, or a type and its default; a *strict* one refuses unknown fields."""
    told = [(field, *(given if isinstance(given, tuple) else (given,))) for field, given in fields.items()]
    tagging: dict[str, Any] = {"tag": tag, "tag_field": "type"} if tag else {}
    made: Struct = msgspec.defstruct(name, told, kw_only=True, forbid_unknown_fields=strict, **tagging)
    return made


def members(*structs: Struct, open_to: tuple[str, ...] | None = ()) -> Any:
    """The union of *structs* and, unless None, a member for later ones with the text fields *open_to*."""
    shared: dict[str, Any] = dict.fromkeys(open_to or (), str)
    later = () if open_to is None else (struct("Later", tag=UNKNOWN, **shared),)
    return Union[(*structs, *later)]


def listed(kind: Any) -> Any:
    """A list of *kind*."""
    return tuple[kind, ...]


def mapped(kind: Any) -> Any:
    """A map to *kind*."""
    return dict[str, kind]


def maybe(kind: Any) -> Any:
    """*kind* or null."""
    return kind | None


def verdict(old: Struct, new: Struct) -> set[tuple[str, str]]:
    """Path and rule of each breach when *old* becomes *new*."""
    before, after = schema(old, "value.v1"), schema(new, "value.v1")
    found = [*compare("value.v1", before, after), *closed("value.v1", after)]
    return {(breach.path, breach.rule.value) for breach in found}


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of *kind* as JSON, every field written."""
    match kind:
        case inspect.Metadata():
            return values(kind.type)
        case inspect.StructType():
            tag = {} if kind.tag is None else {str(kind.tag_field): st.just(kind.tag)}
            fields = kind.fields
            return st.deferred(
                lambda: st.fixed_dictionaries(tag | {f.encode_name: values(f.type) for f in fields})
            )
        case inspect.UnionType():
            written = (each for each in kind.types if getattr(each, "tag", None) != UNKNOWN)
            return st.one_of(*(values(each) for each in written))
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=2)
        case inspect.TupleType():
            return st.tuples(*(values(each) for each in kind.item_types)).map(list)
        case inspect.DictType():
            return st.dictionaries(st.text(max_size=3), values(kind.value_type), max_size=2)
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case _:
            return _SIMPLE[type(kind)]


_SIMPLE: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.StrType: st.text(max_size=4),
    inspect.IntType: st.integers(-(2**53), 2**53),
    inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    inspect.BoolType: st.booleans(),
    inspect.NoneType: st.none(),
    inspect.AnyType: st.one_of(st.none(), st.integers(0, 9), st.text(max_size=2), st.just([])),
}


def decodes(value: Any, reader: Struct) -> bool:
    """Whether *reader* takes *value*, members of unions that came later for what its unknown one has."""
    known = {part.tag for part in _structs(inspect.type_info(reader), [])}
    try:
        msgspec.json.decode(orjson.dumps(_foreseen(value, known)), type=reader)
    except msgspec.ValidationError:
        return False
    return True


def _structs(kind: inspect.Type, found: list[inspect.StructType]) -> list[inspect.StructType]:
    """All structs in *kind* besides those *found*, each once."""
    match kind:
        case inspect.StructType() if not any(kind is each for each in found):
            found.append(kind)
            for field in kind.fields:
                _structs(field.type, found)
        case inspect.UnionType():
            for each in kind.types:
                _structs(each, found)
        case inspect.Metadata():
            _structs(kind.type, found)
        case inspect.VarTupleType():
            _structs(kind.item_type, found)
        case inspect.DictType():
            _structs(kind.value_type, found)
        case _:
            pass
    return found


def _foreseen(value: Any, known: set[Any]) -> Any:
    """*value* as readers see it who take members for ``unknown`` whose tags are not *known*."""
    if isinstance(value, list):
        return [_foreseen(each, known) for each in value]
    if not isinstance(value, dict):
        return value
    told = {name: _foreseen(each, known) for name, each in value.items()}
    return told | {"type": UNKNOWN} if value.get("type", None) not in known and "type" in value else told


# ---------------------------------------------------------------- types made at random

_NAMES = ("a", "b", "c", "d")
_SCALARS = {"text": str, "whole": int, "number": float, "flag": bool}
_NUMBERS = count()
_ZEROS = {"text": "", "whole": 0, "number": 0.0, "flag": False}

#: A type: the name of a scalar, or a pair of "null", "list", "map" or "part" and what is inside.
Shape = Any


def shapes() -> st.SearchStrategy[Shape]:
    """Any types of fields, at most a few levels deep."""
    return st.recursive(
        st.sampled_from(sorted(_SCALARS)),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["null", "list", "map"]), inner),
            st.tuples(st.just("part"), _parts(inner)),
        ),
        max_leaves=6,
    )


def _parts(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    fields = st.tuples(inner, st.booleans())
    return st.dictionaries(st.sampled_from(_NAMES), fields, min_size=1, max_size=3)


def built(shape: Shape) -> Any:
    """The type that *shape* describes; a part's fields are pairs of shape and whether it has a default."""
    if isinstance(shape, str):
        return _SCALARS[shape]
    kind, inner = shape
    match kind:
        case "null":
            return maybe(built(inner))
        case "list":
            return listed(built(inner))
        case "map":
            return mapped(built(inner))
        case _:
            return struct(f"Part{next(_NUMBERS)}", **{name: _field(*told) for name, told in inner.items()})


def _field(shape: Shape, has_default: bool) -> Any:
    kind, default = built(shape), _default(shape)
    return (kind, default[0]) if has_default and default else kind


def _default(shape: Shape) -> tuple[Any, ...]:
    """The default of a field of *shape*, if it can have one."""
    if isinstance(shape, str):
        return (_ZEROS[shape],)
    return {"null": (None,), "list": ((),), "map": ({},)}.get(shape[0], ())


@st.composite
def changed(draw: st.DrawFn, shape: Shape) -> Shape:
    """*shape* with one change somewhere."""
    if isinstance(shape, str):
        return draw(
            st.sampled_from([("null", shape), *(other for other in sorted(_SCALARS) if other != shape)])
        )
    kind, inner = shape
    if kind != "part":
        return inner if draw(st.integers(0, 3)) == 0 else (kind, draw(changed(inner)))
    name = draw(st.sampled_from(sorted(inner)))
    told, has_default = inner[name]
    match draw(st.sampled_from(["add", "inside", "inside", "inside", "default", "remove"])):
        case "add":
            free = [each for each in _NAMES if each not in inner] or [name]
            new = {draw(st.sampled_from(free)): (draw(shapes()), draw(st.sampled_from([True, True, False])))}
        case "inside":
            new = {name: (draw(changed(told)), has_default)}
        case "default":
            new = {name: (told, not has_default)}
        case _:
            return kind, {each: field for each, field in inner.items() if each != name} or inner
    return kind, inner | new
