"""The fields of a type as rows, from its JSON Schema."""

from collections.abc import Iterator, Mapping
from typing import Any, final

import msgspec
import orjson

from pipeline.contracts.schemas import Schema

__all__ = ["Row", "members", "rows"]

_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
}
_FORMATS = {"date-time": "time, RFC 3339", "decimal": "decimal number as text"}


@final
class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One field: where it stands, what it is, what it means."""

    path: str
    kind: str
    description: str
    unit: str = ""
    example: str = ""
    known: tuple[str, ...] = ()
    personal: str = ""


def rows(schema: Schema) -> Iterator[Row]:
    """Every field of *schema*, those within others below them; facts within facts are told elsewhere."""
    yield from _fields(schema, schema.get("$defs", {}), "", ())


def members(part: Schema, defs: Mapping[str, Schema]) -> tuple[str, ...]:
    """The types that *part*, a union told apart by a field, may be."""
    found = (_resolved(each, defs).get("properties", {}) for each in part.get("anyOf", ()))
    tags = (each.get(part.get("x-discriminator", ""), {}).get("const") for each in found)
    return tuple(tag for tag in tags if tag)


def _fields(part: Schema, defs: Mapping[str, Schema], path: str, within: tuple[int, ...]) -> Iterator[Row]:
    for name, made in part.get("properties", {}).items():
        field, below = _resolved(made, defs), f"{path}.{name}".lstrip(".")
        yield _row(below, field, made, defs)
        inner, where = _inner(field, defs)
        if inner is not None and id(inner) not in within:
            yield from _fields(inner, defs, below + where, (*within, id(inner)))


def _inner(field: Schema, defs: Mapping[str, Schema]) -> tuple[Schema | None, str]:
    """The object within *field*, and what leads from its path to it."""
    if "x-discriminator" in field:
        return None, ""
    if "properties" in field:
        return _same(field, defs), ""
    for alternative in field.get("anyOf", ()):
        found = _resolved(alternative, defs)
        if "properties" in found:
            return _same(found, defs), ""
    if isinstance(field.get("items"), dict):
        item, where = _inner(_resolved(field["items"], defs), defs)
        return item, f".*{where}"
    return None, ""


def _same(found: Schema, defs: Mapping[str, Schema]) -> Schema:
    """The one definition that *found* was made of, so that what contains itself is seen to do so."""
    return defs.get(found.get("title", ""), found)


def _resolved(part: Schema, defs: Mapping[str, Schema]) -> Schema:
    """*part* with what it refers to; its own words win."""
    if "$ref" not in part:
        return part
    return {**defs[part["$ref"].rpartition("/")[2]], **part}


def _row(path: str, field: Schema, made: Schema, defs: Mapping[str, Schema]) -> Row:
    examples = field.get("examples", ())
    shown = examples and "properties" not in field
    return Row(
        path=path,
        kind=_kind(field, defs),
        description=made.get("description") or field.get("description", ""),
        unit=field.get("x-unit", ""),
        example=_text(examples[0]) if shown else _text(field["const"]) if "const" in field else "",
        known=tuple(map(str, field.get("x-known-values", ()))) or members(field, defs),
        personal=field.get("x-personal-data", ""),
    )


def _text(example: Any) -> str:
    return example if isinstance(example, str) else orjson.dumps(example).decode()


def _kind(field: Schema, defs: Mapping[str, Schema]) -> str:
    """What a value of *field* is, in words."""
    if "anyOf" in field:
        kinds = [_kind(_resolved(each, defs), defs) for each in field["anyOf"]]
        return "one of these types" if "x-discriminator" in field else " or ".join(dict.fromkeys(kinds))
    told = field.get("type", "string" if "const" in field else "any")
    names = [told] if isinstance(told, str) else list(told)
    return " or ".join(_word(name, field, defs) for name in names)


def _word(name: str, field: Schema, defs: Mapping[str, Schema]) -> str:
    items = field.get("items")
    if name == "array" and isinstance(items, dict):
        return f"list of {_kind(_resolved(items, defs), defs)}"
    if name == "string":
        return _FORMATS.get(field.get("format", ""), "text")
    if name == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map to {_kind(_resolved(field['additionalProperties'], defs), defs)}"
    return _KINDS.get(name, name)
