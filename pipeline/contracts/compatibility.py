"""
What changed between two schemas of one type, as the readers of both have to live with it.

Within a major version a field may only be added, with a default. Both directions are meant: readers of
the new schema read old records, and readers of the old schema read new ones. Writers write every field,
so a field that gets a default breaks nobody. Descriptions, examples and titles are free.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from pipeline.contracts.breaches import Breach, Rule
from pipeline.contracts.schemas import Schema

__all__ = ["closed", "compare", "reused"]

Kinds: TypeAlias = dict[str, Schema]

_NULL, _ANY, _FALLBACK = "null", "anything", "a later member"
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "multipleOf")
_WRITTEN_AS = ("format", "contentEncoding")


class _Place(NamedTuple):
    """The same place in two schemas: what to call it, and what their references mean."""

    subject: str
    path: str
    old: Mapping[str, Schema]
    new: Mapping[str, Schema]
    seen: frozenset[tuple[str, str]] = frozenset()

    def at(self, path: str) -> "_Place":
        return self._replace(path=f"{self.path}{path}".lstrip("."))

    def breach(self, rule: Rule, told: str) -> Breach:
        return Breach(subject=self.subject, path=self.path, rule=rule, told=told)


def compare(subject: str, old: Schema, new: Schema) -> list[Breach]:
    """What of *old*, the promised schema of the type *subject*, *new* breaks."""
    place = _Place(subject, "", old.get("$defs", {}), new.get("$defs", {}))
    return sorted(set(_part(place, old, new)))


def closed(subject: str, schema: Schema) -> list[Breach]:
    """Where *schema* would make today's readers refuse what a compatible later version writes."""
    parts = schema.get("$defs", {})
    place = _Place(subject, "", parts, parts)
    return sorted(set(_closed(place, schema)))


def reused(subject: str, releases: Iterable[Schema], current: Schema) -> list[Breach]:
    """Names of *current* that one of *releases*, oldest first, had and a later one did not."""
    before: set[str] = set()
    gone: set[str] = set()
    for schema in releases:
        paths = set(_paths(schema, schema.get("$defs", {}), "", frozenset()))
        gone |= before - paths
        before |= paths
    back = gone & set(_paths(current, current.get("$defs", {}), "", frozenset()))
    told = "the name stood for a field of an older release, which a later one does not have"
    return [
        Breach(subject=subject, path=path, rule=Rule.REUSED, told=told)
        for path in sorted(back)
        if not any(path.startswith((f"{other}.", f"{other}[")) for other in back)
    ]


# ---------------------------------------------------------------- one place in both schemas


def _part(place: _Place, old: Schema, new: Schema) -> Iterator[Breach]:
    pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
    if all(pair):
        if pair in place.seen:
            return
        place = place._replace(seen=place.seen | {pair})
    yield from _annotations(place, old, new)
    before, after = _kinds(old, place.old), _kinds(new, place.new)
    if _is_other(before, after):
        yield place.breach(Rule.RETYPED, f"was {_list(before)}, is {_list(after)}")
        return
    if lost := _told(before, after):
        yield place.breach(Rule.NARROWED, f"{_list(lost)} is not read any more")
    if gained := _refused(before, after):
        yield place.breach(Rule.WIDENED, f"older readers refuse {_list(gained)}")
    for kind in before:
        if kind in after:
            yield from _kind(place.at(_member(kind, before, after)), before[kind], after[kind])


def _refused(before: Kinds, after: Kinds) -> list[str]:
    """What readers of *before* cannot take of *after*; a member for later ones takes any other member."""
    gained = [kind for kind in _told(after, before) if kind != _FALLBACK]
    return [kind for kind in gained if not (kind.startswith("[") and _FALLBACK in before)]


def _member(kind: str, *unions: Kinds) -> str:
    """How a path names *kind*: only a member of a union that has several, or the one for later ones."""
    if kind == _FALLBACK:
        return "[unknown]"
    is_one_of_many = any(len([each for each in union if each.startswith("[")]) > 1 for union in unions)
    return kind if kind.startswith("[") and is_one_of_many else ""


def _annotations(place: _Place, old: Schema, new: Schema) -> Iterator[Breach]:
    """What is said beside the type."""
    unit, now = old.get("x-unit"), new.get("x-unit")
    if unit is not None and unit != now:
        yield place.breach(Rule.UNIT_CHANGED, f"was {unit}, is {now or 'not told'}")
    gone = [value for value in old.get("x-known-values", ()) if value not in new.get("x-known-values", ())]
    if gone:
        yield place.breach(Rule.VALUE_REMOVED, f"no more known: {_list(gone)}")
    if "default" in old and "default" in new and old["default"] != new["default"]:
        yield place.breach(Rule.DEFAULT_CHANGED, f"was {old['default']!r}, is {new['default']!r}")


def _kinds(part: Schema, parts: Mapping[str, Schema]) -> Kinds:
    """Kind -> schema of each alternative that *part* leaves; tagged members are ``[tag]``."""
    if "$ref" in part:
        return _kinds(parts[part["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in part:
        return {kind: each for member in part["anyOf"] for kind, each in _kinds(member, parts).items()}
    if part.get("x-fallback"):
        return {_FALLBACK: part}
    told = part.get("type")
    if told is None:
        constants = [part["const"]] if "const" in part else part.get("enum")
        kinds = sorted({_JSON[type(each)] for each in constants}) if constants else [_ANY]
        return dict.fromkeys(kinds, part)
    return {_named(kind, part): part for kind in ([told] if isinstance(told, str) else told)}


_JSON = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): _NULL}


def _named(kind: str, part: Schema) -> str:
    """What *kind* of JSON *part* is: a struct by its tag, if it has one, else told from a map."""
    if kind != "object":
        return kind
    tag = part.get("properties", {}).get("type", {}).get("const")
    if tag is not None:
        return f"[{tag}]"
    return "object" if "properties" in part else "map"


def _told(one: Kinds, other: Kinds) -> list[str]:
    """The kinds of *one* that *other* does not take; a number takes whole ones."""
    if _ANY in other:
        return []
    return [kind for kind in one if kind not in other and not (kind == "integer" and "number" in other)]


def _is_other(before: Kinds, after: Kinds) -> bool:
    """Whether nothing is left of a type but its null."""
    if _ANY in before or _ANY in after:
        return False
    one, two = set(before) - {_NULL}, set(after) - {_NULL}
    if {"integer", "number"} <= one | two:
        one, two = one | {"number"}, two | {"number"}
    return not one & two and bool(one | two)


def _kind(place: _Place, old: Schema, new: Schema) -> Iterator[Breach]:
    """One alternative that both schemas have."""
    if "properties" in old:
        yield from _fields(place, old, new)
    if isinstance(old.get("additionalProperties"), dict) and isinstance(
        new.get("additionalProperties"), dict
    ):
        yield from _part(place.at(".*"), old["additionalProperties"], new["additionalProperties"])
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        yield from _part(place.at(".*"), old["items"], new["items"])
    one, two = old.get("prefixItems"), new.get("prefixItems")
    if _length(one) != _length(two):
        yield place.breach(Rule.RETYPED, f"was a list {_length(one)}, is a list {_length(two)}")
        return
    for index, (before, after) in enumerate(zip(one or (), two or (), strict=True)):
        yield from _part(place.at(f".{index}"), before, after)
    yield from _limits(place, old, new)


def _length(elements: list[Schema] | None) -> str:
    return "of any length" if elements is None else f"of {len(elements)}"


# ---------------------------------------------------------------- fields


def _fields(place: _Place, old: Schema, new: Schema) -> Iterator[Breach]:
    before, after = _named_fields(old), _named_fields(new)
    needed, must = set(old.get("required", ())), set(new.get("required", ()))
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    renamed = _renamed(removed, added, before, after)
    for name in removed:
        rule = Rule.RENAMED if renamed else Rule.REMOVED
        yield place.at(f".{name}").breach(rule, f"is now called {renamed}" if renamed else "is gone")
    for name in added:
        if name in must and name != renamed:
            yield place.at(f".{name}").breach(Rule.ADDED_REQUIRED, "has no default")
    for name in before:
        if name in after:
            if name in must - needed:
                yield place.at(f".{name}").breach(Rule.MADE_REQUIRED, "has no default any more")
            yield from _part(place.at(f".{name}"), before[name], after[name])


def _named_fields(part: Schema) -> dict[str, Schema]:
    """The fields of a struct but its tag, which `_named` tells."""
    fields = part.get("properties", {})
    is_tag = {"const", "not"} & set(fields.get("type", {}))
    return {name: field for name, field in fields.items() if not (name == "type" and is_tag)}


def _renamed(
    removed: list[str], added: list[str], before: Mapping[str, Schema], after: Mapping[str, Schema]
) -> str:
    """The new name of the one field that went, where the one that came is the same; else empty."""
    if len(removed) == len(added) == 1 and _core(before[removed[0]]) == _core(after[added[0]]):
        return added[0]
    return ""


def _core(field: Schema) -> Schema:
    """What a field is, whatever is told of it."""
    told = {"title", "description", "examples", "default", "x-personal-data"}
    return {keyword: value for keyword, value in field.items() if keyword not in told}


# ---------------------------------------------------------------- limits


def _limits(place: _Place, old: Schema, new: Schema) -> Iterator[Breach]:
    """Which values of one kind are valid."""
    for keywords, sign in ((_LOWER, 1), (_UPPER, -1)):
        for keyword in keywords:
            yield from _bound(place, keyword, old.get(keyword), new.get(keyword), sign)
    for keyword in _EXACT:
        one, two = old.get(keyword), new.get(keyword)
        if one != two:
            rule = Rule.NARROWED if one is None else Rule.WIDENED if two is None else Rule.RETYPED
            yield place.breach(rule, f"{keyword} was {one}, is {two}")
    for keyword in _WRITTEN_AS:
        if old.get(keyword) != new.get(keyword):
            yield place.breach(Rule.RETYPED, f"{keyword} was {old.get(keyword)}, is {new.get(keyword)}")
    if "enum" in old or "enum" in new:
        yield from _values(place, old.get("enum"), new.get("enum"))


def _bound(place: _Place, keyword: str, old: Any, new: Any, sign: int) -> Iterator[Breach]:
    """A lower (*sign* 1) or upper (-1) limit: a tighter one narrows, a looser one widens."""
    if old == new:
        return
    is_tighter = old is None or (new is not None and (new - old) * sign > 0)
    yield place.breach(Rule.NARROWED if is_tighter else Rule.WIDENED, f"{keyword} was {old}, is {new}")


def _values(place: _Place, old: list[Any] | None, new: list[Any] | None) -> Iterator[Breach]:
    """Values of a closed set; None is any value."""
    if old is None:
        yield place.breach(Rule.NARROWED, f"only {_list(new or ())} is read")
        return
    gone = [value for value in old if new is not None and value not in new]
    if gone:
        yield place.breach(Rule.VALUE_REMOVED, f"no more valid: {_list(gone)}")
    if new is None or any(value not in old for value in new):
        yield place.breach(Rule.WIDENED, "older readers refuse other values")


# ---------------------------------------------------------------- one schema alone


def _closed(place: _Place, part: Schema) -> Iterator[Breach]:
    """What in *part* and below shuts out later additions."""
    reference = str(part.get("$ref", ""))
    if reference and (reference, reference) in place.seen:
        return
    place = place._replace(seen=place.seen | {(reference, reference)}) if reference else place
    kinds = _kinds(part, place.new)
    if _FALLBACK not in kinds and any(_member(kind, kinds) for kind in kinds):
        yield place.breach(Rule.CLOSED, "no member stands for those that come later")
    for kind, each in kinds.items():
        below = place.at(_member(kind, kinds))
        if "enum" in each:
            yield below.breach(Rule.CLOSED, "only the values of today are valid")
        if each.get("additionalProperties") is False:
            yield below.breach(Rule.CLOSED, "fields that come later are refused")
        for name, field in _named_fields(each).items():
            yield from _closed(below.at(f".{name}"), field)
        for keyword in ("additionalProperties", "items"):
            if isinstance(each.get(keyword), dict):
                yield from _closed(below.at(".*"), each[keyword])


def _paths(part: Schema, parts: Mapping[str, Schema], path: str, seen: frozenset[str]) -> Iterator[str]:
    """The path of every field in *part*."""
    reference = str(part.get("$ref", ""))
    if reference in seen:
        return
    seen |= {reference} - {""}
    kinds = _kinds(part, parts)
    for kind, each in kinds.items():
        below = f"{path}{_member(kind, kinds)}"
        for name, field in _named_fields(each).items():
            inside = f"{below}.{name}".lstrip(".")
            yield inside
            yield from _paths(field, parts, inside, seen)
        for keyword in ("additionalProperties", "items"):
            if isinstance(each.get(keyword), dict):
                yield from _paths(each[keyword], parts, f"{below}.*", seen)


def _list(names: Iterable[Any]) -> str:
    return ", ".join(str(name).strip("[]") for name in names)
