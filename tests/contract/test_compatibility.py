"""Which changes of a type its readers can live with: a table, and what old and new types really decode."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, inspect

from pipeline.contracts.breaches import ALLOWED, Rule
from pipeline.contracts.compatibility import compare, reused
from pipeline.contracts.schemas import schema
from pipeline.events.fields import choice, doc
from tests.contract.evolutions import decodes, listed, mapped, maybe, members, struct, values, verdict

Texts, Numbers = tuple[str, ...], tuple[int, ...]
PART, PART_AND_B = struct("Part", a=int), struct("Part", a=int, b=(str, ""))
PART_NEEDS_B, NO_PART = struct("Part", a=int, b=str), struct("Part", c=(int, 0), d=(int, 0))
ONE, TWO, THREE = (struct(tag.title(), tag=tag, at=str, n=int) for tag in ("one", "two", "three"))
ONE_AND_B = struct("One", tag="one", at=str, n=int, b=(int, 0))
ONE_NEEDS_B = struct("One", tag="one", at=str, n=int, b=int)
ONE_WITHOUT_N = struct("One", tag="one", at=str)
UNTIMED = struct("Untimed", tag="untimed", n=int)
COUNTED = struct("Counted", tag="counted", at=int, n=int)
KNOWN = {"open_to": ("at",)}


class Tree(msgspec.Struct):
    """A type that holds itself."""

    n: int
    below: tuple["Tree", ...] = ()


class GrownTree(msgspec.Struct):
    """The same with a field more."""

    n: int
    below: tuple["GrownTree", ...] = ()
    colour: str | None = None


class BrokenTree(msgspec.Struct):
    """The same with a field of another type."""

    n: str
    below: tuple["BrokenTree", ...] = ()


def told(kind: Any, *arguments: Any, **keywords: Any) -> Any:
    """*kind*, annotated as fields are."""
    return Annotated[kind, doc("What it means", *arguments, **keywords)]


def chosen(*known: str) -> Any:
    """A text that is one of *known* today."""
    return Annotated[str, choice("Which", *known)]


#: What changes -> the struct before, the struct after, and path and rule of each breach.
CASES: dict[str, tuple[Any, Any, set[tuple[str, str]]]] = {
    # -- what readers can live with
    "nothing": (struct(a=int), struct(a=int), set()),
    "a field with a default": (struct(a=int), struct(a=int, b=(str, "")), set()),
    "a field that may be null": (struct(a=int), struct(a=int, b=(str | None, None)), set()),
    "a list with a default": (struct(a=int), struct(a=int, b=(Texts, ())), set()),
    "a map with a default": (struct(a=int), struct(a=int, b=(dict[str, int], {})), set()),
    "a struct that may be null": (struct(a=int), struct(a=int, b=(maybe(PART), None)), set()),
    "two fields with defaults": (struct(a=int), struct(a=int, b=(int, 0), c=(int, 0)), set()),
    "a field before the others": (struct(a=int), struct(b=(int, 0), a=int), set()),
    "another order": (struct(a=int, b=str), struct(b=str, a=int), set()),
    "a default for what was required": (struct(a=int), struct(a=(int, 0)), set()),
    "null for a default": (struct(a=str | None), struct(a=(str | None, None)), set()),
    "other words": (struct(a=int), struct(a=told(int)), set()),
    "another example": (struct(a=told(int, 1)), struct(a=told(int, 2)), set()),
    "another class of personal data": (
        struct(a=told(str, personal="none")),
        struct(a=told(str, personal="direct")),
        set(),
    ),
    "a unit for the first time": (struct(a=int), struct(a=told(int, unit="s")), set()),
    "known values for the first time": (struct(a=str), struct(a=chosen("x")), set()),
    "a known value more": (struct(a=chosen("x")), struct(a=chosen("x", "y")), set()),
    "the name of the class": (struct("Old", a=int), struct("New", a=int), set()),
    "the name of a part's class": (struct(p=PART), struct(p=struct("Piece", a=int)), set()),
    "a field in a part": (struct(p=PART), struct(p=PART_AND_B), set()),
    "a field in a part that may be null": (struct(p=maybe(PART)), struct(p=maybe(PART_AND_B)), set()),
    "a field in a list's items": (struct(p=listed(PART)), struct(p=listed(PART_AND_B)), set()),
    "a field in a map's values": (struct(p=mapped(PART)), struct(p=mapped(PART_AND_B)), set()),
    "a field deep below": (
        struct(p=mapped(listed(PART))),
        struct(p=mapped(listed(PART_AND_B))),
        set(),
    ),
    "a field in what holds itself": (Tree, GrownTree, set()),
    "a field in a union's member": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE_AND_B, TWO, **KNOWN)),
        set(),
    ),
    "a member where others are foreseen": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, TWO, THREE, **KNOWN)),
        set(),
    ),
    "a member for later ones": (
        struct(e=members(ONE, TWO, open_to=None)),
        struct(e=members(ONE, TWO, **KNOWN)),
        set(),
    ),
    "the order of members": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(TWO, ONE, **KNOWN)),
        set(),
    ),
    # -- fields that go
    "a field gone": (struct(a=int, b=str), struct(a=int), {("b", "removed")}),
    "a field with a default gone": (struct(a=int, b=(str, "")), struct(a=int), {("b", "removed")}),
    "two fields gone": (struct(a=int, b=str), struct(), {("a", "removed"), ("b", "removed")}),
    "a field renamed": (struct(a=int, b=str), struct(a=int, c=(str, "")), {("b", "renamed")}),
    "a field renamed and required": (struct(a=int, b=str), struct(a=int, c=str), {("b", "renamed")}),
    "a field for another": (struct(a=int, b=str), struct(a=int, c=(int, 0)), {("b", "removed")}),
    "a field for a required one": (
        struct(a=int, b=str),
        struct(a=int, c=int),
        {("b", "removed"), ("c", "added-required")},
    ),
    "another case of letters": (struct(aB=str), struct(ab=str), {("aB", "renamed")}),
    "a field of a part gone": (struct(p=PART), struct(p=NO_PART), {("p.a", "removed")}),
    "a field of a list's items gone": (
        struct(p=listed(PART)),
        struct(p=listed(NO_PART)),
        {("p.*.a", "removed")},
    ),
    "a field of a map's values gone": (
        struct(p=mapped(PART)),
        struct(p=mapped(NO_PART)),
        {("p.*.a", "removed")},
    ),
    "a field of a union's member gone": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE_WITHOUT_N, TWO, **KNOWN)),
        {("e[one].n", "removed")},
    ),
    # -- fields that must be there
    "a required field": (struct(a=int), struct(a=int, b=str), {("b", "added-required")}),
    "a required field that may be null": (
        struct(a=int),
        struct(a=int, b=str | None),
        {("b", "added-required")},
    ),
    "a required field in a part": (struct(p=PART), struct(p=PART_NEEDS_B), {("p.b", "added-required")}),
    "a required field in a list's items": (
        struct(p=listed(PART)),
        struct(p=listed(PART_NEEDS_B)),
        {("p.*.b", "added-required")},
    ),
    "a required field in a union's member": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE_NEEDS_B, TWO, **KNOWN)),
        {("e[one].b", "added-required")},
    ),
    "a default gone": (struct(a=(int, 0)), struct(a=int), {("a", "made-required")}),
    "a default gone in a part": (
        struct(p=PART_AND_B),
        struct(p=PART_NEEDS_B),
        {("p.b", "made-required")},
    ),
    "another default": (struct(a=(int, 0)), struct(a=(int, 1)), {("a", "default-changed")}),
    "a default for null": (
        struct(a=(str | None, None)),
        struct(a=(str | None, "")),
        {("a", "default-changed")},
    ),
    # -- other types
    "a number for a text": (struct(a=str), struct(a=int), {("a", "retyped")}),
    "a text for a flag": (struct(a=bool), struct(a=str), {("a", "retyped")}),
    "a number for a text that may be null": (
        struct(a=str | None),
        struct(a=int | None),
        {("a", "retyped")},
    ),
    "a list for its item": (struct(a=str), struct(a=Texts), {("a", "retyped")}),
    "a map for a list": (struct(a=Texts), struct(a=dict[str, str]), {("a", "retyped")}),
    "a map for a struct": (struct(p=PART), struct(p=dict[str, int]), {("p", "retyped")}),
    "a struct for a map": (struct(p=dict[str, int]), struct(p=PART), {("p", "retyped")}),
    "other items": (struct(a=Texts), struct(a=Numbers), {("a.*", "retyped")}),
    "other values of a map": (
        struct(a=dict[str, str]),
        struct(a=dict[str, int]),
        {("a.*", "retyped")},
    ),
    "another type in a part": (
        struct(p=PART),
        struct(p=struct("Part", a=str)),
        {("p.a", "retyped")},
    ),
    "another type in what holds itself": (
        Tree,
        BrokenTree,
        {("n", "retyped"), ("below.*.n", "retyped")},
    ),
    "another tag": (struct(tag="x", a=int), struct(tag="y", a=int), {("", "retyped")}),
    "an element more": (
        struct(a=tuple[int, int]),
        struct(a=tuple[int, int, int]),
        {("a", "retyped")},
    ),
    "a fixed length": (struct(a=Numbers), struct(a=tuple[int, int]), {("a", "retyped")}),
    "another element": (struct(a=tuple[int, str]), struct(a=tuple[int, int]), {("a.1", "retyped")}),
    "text written otherwise": (
        struct(a=told(str, text_format="decimal")),
        struct(a=told(str)),
        {("a", "retyped")},
    ),
    "bytes for a text": (struct(a=str), struct(a=bytes), {("a", "retyped")}),
    "another unit": (
        struct(a=told(int, unit="s")),
        struct(a=told(int, unit="ms")),
        {("a", "unit-changed")},
    ),
    "a unit gone": (struct(a=told(int, unit="s")), struct(a=told(int)), {("a", "unit-changed")}),
    # -- less than before
    "null no more": (struct(a=str | None), struct(a=str), {("a", "narrowed")}),
    "null no more in items": (
        struct(a=tuple[str | None, ...]),
        struct(a=Texts),
        {("a.*", "narrowed")},
    ),
    "null no more for a part": (struct(p=maybe(PART)), struct(p=PART), {("p", "narrowed")}),
    "whole numbers only": (struct(a=float), struct(a=int), {("a", "narrowed")}),
    "an alternative gone": (struct(a=int | str), struct(a=int), {("a", "narrowed")}),
    "text only": (struct(a=Any), struct(a=str), {("a", "narrowed")}),
    "a least value": (struct(a=int), struct(a=Annotated[int, Meta(ge=0)]), {("a", "narrowed")}),
    "a larger least value": (
        struct(a=Annotated[int, Meta(ge=0)]),
        struct(a=Annotated[int, Meta(ge=1)]),
        {("a", "narrowed")},
    ),
    "a shorter text": (
        struct(a=Annotated[str, Meta(max_length=9)]),
        struct(a=Annotated[str, Meta(max_length=8)]),
        {("a", "narrowed")},
    ),
    "a pattern": (struct(a=str), struct(a=Annotated[str, Meta(pattern="x")]), {("a", "narrowed")}),
    "a member gone": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, **KNOWN)),
        {("e", "narrowed")},
    ),
    "a member's tag": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, THREE, **KNOWN)),
        {("e", "narrowed")},
    ),
    "a known value gone": (
        struct(a=chosen("x", "y")),
        struct(a=chosen("x")),
        {("a", "value-removed")},
    ),
    "known values not told any more": (struct(a=chosen("x")), struct(a=str), {("a", "value-removed")}),
    # -- more than older readers take
    "null from now on": (struct(a=str), struct(a=str | None), {("a", "widened")}),
    "null from now on in items": (
        struct(a=Texts),
        struct(a=tuple[str | None, ...]),
        {("a.*", "widened")},
    ),
    "null from now on for a part": (struct(p=PART), struct(p=maybe(PART)), {("p", "widened")}),
    "fractions": (struct(a=int), struct(a=float), {("a", "widened")}),
    "an alternative": (struct(a=int), struct(a=int | str), {("a", "widened")}),
    "an alternative for another": (
        struct(a=int | str),
        struct(a=int | bool),
        {("a", "narrowed"), ("a", "widened")},
    ),
    "anything": (struct(a=str), struct(a=Any), {("a", "widened")}),
    "a smaller least value": (
        struct(a=Annotated[int, Meta(ge=1)]),
        struct(a=Annotated[int, Meta(ge=0)]),
        {("a", "widened")},
    ),
    "no most value any more": (
        struct(a=Annotated[int, Meta(le=9)]),
        struct(a=int),
        {("a", "widened")},
    ),
    "no pattern any more": (struct(a=Annotated[str, Meta(pattern="x")]), struct(a=str), {("a", "widened")}),
    "another pattern": (
        struct(a=Annotated[str, Meta(pattern="x")]),
        struct(a=Annotated[str, Meta(pattern="y")]),
        {("a", "retyped")},
    ),
    # -- what shuts out later versions
    "values of today only": (
        struct(a=str),
        struct(a=Literal["x", "y"]),
        {("a", "narrowed"), ("a", "closed")},
    ),
    "a value more in a closed set": (
        struct(a=Literal["x"]),
        struct(a=Literal["x", "y"]),
        {("a", "widened"), ("a", "closed")},
    ),
    "a value less in a closed set": (
        struct(a=Literal["x", "y", "z"]),
        struct(a=Literal["x", "y"]),
        {("a", "value-removed"), ("a", "closed")},
    ),
    "an opened set": (struct(a=Literal["x", "y"]), struct(a=str), {("a", "widened")}),
    "fields of today only": (struct(a=int), struct(a=int, strict=True), {("", "closed")}),
    "fields of today only in items": (
        struct(p=listed(PART)),
        struct(p=listed(struct("Part", a=int, strict=True))),
        {("p.*", "closed")},
    ),
    "members of today only": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, TWO, open_to=None)),
        {("e", "narrowed"), ("e", "closed")},
    ),
    "a member that nobody foresaw": (
        struct(e=members(ONE, TWO, open_to=None)),
        struct(e=members(ONE, TWO, THREE, open_to=None)),
        {("e", "widened"), ("e", "closed")},
    ),
    "a member that has otherwise what all have": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, TWO, COUNTED, **KNOWN)),
        {("e[unknown].at", "removed")},
    ),
    "a member without what all have": (
        struct(e=members(ONE, TWO, **KNOWN)),
        struct(e=members(ONE, TWO, UNTIMED, **KNOWN)),
        {("e[unknown].at", "removed")},
    ),
}


@pytest.mark.parametrize("change", CASES)
def test_a_change_has_its_verdict(change: str) -> None:
    """Exactly these places and rules, whatever else stands there."""
    old, new, expected = CASES[change]
    assert verdict(old, new) == expected


def test_the_table_is_as_large_as_promised() -> None:
    """At least 60 changes, of each kind and rule some."""
    compatible = [change for change, (_, _, expected) in CASES.items() if not expected]
    assert (len(CASES) >= 60, len(compatible) >= 20) == (True, True)
    rules = {rule for _, _, expected in CASES.values() for _, rule in expected}
    fields = {rule.value for rule in list(Rule)[: list(Rule).index(Rule.TYPE_REMOVED)]}
    assert rules == fields - {"reused"}


def test_every_rule_says_what_is_allowed() -> None:
    """Nobody is told no without a way."""
    assert set(ALLOWED) == set(Rule)


@pytest.mark.parametrize("change", [change for change, case in CASES.items() if not case[2]])
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_called_compatible_is_decoded(change: str, data: st.DataObject) -> None:
    """Old types take whatever new ones write, and the other way round."""
    old, new, _ = CASES[change]
    assert decodes(data.draw(values(inspect.type_info(new))), old)
    assert decodes(data.draw(values(inspect.type_info(old))), new)


def test_a_breach_names_type_place_change_and_way_out() -> None:
    """What a person needs who reads it in CI."""
    (breach,) = compare("x.v1", schema(struct(a=str), "x.v1"), schema(struct(a=int), "x.v1"))
    assert (breach.subject, breach.path, breach.told) == ("x.v1", "a", "was string, is integer")
    assert "add another one with a default" in breach.allowed


@pytest.mark.parametrize(
    ("releases", "now", "expected"),
    [
        ([struct(a=int)], struct(a=int), []),
        ([struct(a=int), struct(b=int)], struct(b=int), []),
        ([struct(a=int, b=int), struct(b=int)], struct(a=int, b=int), ["a"]),
        ([struct(a=int, b=int), struct(b=int), struct(b=int)], struct(a=str, b=int), ["a"]),
        ([struct(p=PART, b=int), struct(b=int)], struct(p=PART, b=int), ["p"]),
        ([struct(p=PART), struct(p=NO_PART)], struct(p=PART), ["p.a"]),
        ([struct(p=(PART,)), struct(p=(NO_PART,)), struct(p=(PART_AND_B,))], struct(p=PART), ["p.a"]),
        ([struct(p=listed(PART)), struct(p=listed(NO_PART))], struct(p=listed(PART)), ["p.*.a"]),
        ([Tree, struct(n=int)], Tree, ["below"]),
    ],
)
def test_a_name_that_went_never_comes_back(releases: list[Any], now: Any, expected: list[str]) -> None:
    """Between any two releases, however long ago, with the same type or another."""
    found = reused("x.v1", [schema(each, "x.v1") for each in releases], schema(now, "x.v1"))
    assert [(breach.path, breach.rule) for breach in found] == [(path, Rule.REUSED) for path in expected]
