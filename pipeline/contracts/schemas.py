"""
The JSON Schema (draft 2020-12) of every value type, made from the structs of `pipeline.events`.

- ``schemas()``: ``ce_type`` -> schema, of all types; plain dicts that are yours to change
- ``schema(struct, name)``: of any one struct; ``id_of(name)``: its ``$id``
- ``example(name)``: a value of the type, made of its fields' examples
- ``as_bytes(schema)``: the bytes of its file, the same for the same types

A schema is self-contained: what it refers to stands in its ``$defs``. Beside the keywords of 2020-12
it says

- ``x-unit``: what a number counts; ``format``: what a text is written as
- ``x-personal-data``: ``direct``, ``pseudonym`` or ``none``, as `pipeline.events.fields` has it
- ``x-known-values``: the values known today; others may come, so there is no ``enum``
- ``x-discriminator``: the field that tells which member of an ``anyOf`` a value is
- ``x-fallback``: the member that stands for all types that came later

Objects are open, as readers ignore fields that they do not know. ``required`` is what every version
wrote; a field with a default was added later, or can be left out by a test's author.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import orjson

from pipeline.events import TYPES
from pipeline.events.wire import UNKNOWN

__all__ = ["DIALECT", "Schema", "as_bytes", "example", "id_of", "schema", "schemas"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PREFIX = "#/$defs/"

#: A schema or a part of one, as JSON.
Schema: TypeAlias = dict[str, Any]

#: The order of keywords in a file; those that are not named here come before ``default``.
_FIRST = ("$schema", "$id", "$ref", "title", "description", "type", "const", "format")
_LAST = ("default", "properties", "required", "items", "additionalProperties", "anyOf", "examples", "$defs")


def schemas() -> dict[str, Schema]:
    """``ce_type`` -> schema of every type, in the order of their names."""
    return {name: deepcopy(_registered(name)) for name in sorted(TYPES)}


def schema(struct: type[msgspec.Struct], name: str) -> Schema:
    """The schema of *struct*, whose values travel as ``ce_type`` *name*."""
    (root,), found = msgspec.json.schema_components([struct], ref_template=_PREFIX + "{name}")
    parts = {title: _part(part, found) for title, part in found.items()}
    own = parts[_title(root)]
    whole = {
        "$schema": DIALECT,
        "$id": id_of(name),
        **own,
        "examples": [_example(own, parts, (_title(root),))],
    }
    if used := sorted(_used(own, parts)):
        whole["$defs"] = {title: parts[title] for title in used}
    made: Schema = orjson.loads(orjson.dumps(_ordered(whole)))  # JSON's own types, as if read from its file
    return made


def example(name: str) -> dict[str, Any]:
    """A value of ``ce_type`` *name* as JSON: of every field its first example."""
    found: dict[str, Any] = deepcopy(_registered(name)["examples"][0])
    return found


def id_of(name: str) -> str:
    """What the schema of ``ce_type`` *name* is called wherever it is kept."""
    return f"urn:sakari-users-pipeline:schema:{name}"


def as_bytes(content: Mapping[str, Any]) -> bytes:
    """*content* as a file of JSON holds it: indented, in its own order, ended by a newline."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@lru_cache(maxsize=256)
def _registered(name: str) -> Schema:
    return schema(TYPES[name], name)


# ---------------------------------------------------------------- from what msgspec makes of a type


def _part(made: Schema, parts: Mapping[str, Schema]) -> Schema:
    """*made*, one of msgspec's *parts* or within one, as readers are to see it."""
    part = dict(made)
    if "description" in part:
        part["description"] = _plain(part["description"])
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            part[keyword] = _part(part[keyword], parts)
    for keyword in ("anyOf", "prefixItems"):
        if keyword in part:
            part[keyword] = [_part(each, parts) for each in part[keyword]]
    if "properties" in part:
        part["properties"] = {name: _field(name, each, parts) for name, each in part["properties"].items()}
    return _ordered(_union(part, parts) if "anyOf" in part else part)


def _field(name: str, made: Schema, parts: Mapping[str, Schema]) -> Schema:
    """One field of a struct; its tag is a constant."""
    if name == "type" and len(made.get("enum", ())) == 1:
        return {"description": "Which type this is", "const": made["enum"][0]}
    return _part(made, parts)


def _union(part: Schema, parts: Mapping[str, Schema]) -> Schema:
    """Alternatives: null joins the type of the only other one; a tagged union says how to choose."""
    discriminator = part.pop("discriminator", None)
    if discriminator is not None:
        part["x-discriminator"] = discriminator["propertyName"]
        part["anyOf"] = _members(part["anyOf"], discriminator["mapping"], parts)
        return part
    others = [each for each in part["anyOf"] if each != {"type": "null"}]
    if len(others) == 1 and len(part["anyOf"]) == 2 and isinstance(others[0].get("type"), str):
        alone = {name: value for name, value in part.items() if name != "anyOf"}
        return {**others[0], **alone, "type": [others[0]["type"], "null"]}
    return part


def _members(members: list[Schema], mapping: Mapping[str, str], parts: Mapping[str, Schema]) -> list[Schema]:
    """The members of a tagged union; the one for what came later has what all have, under any other tag."""
    rest = [each for each in members if each.get("$ref") != mapping.get(UNKNOWN)]
    if len(rest) == len(members):
        return members
    made = parts[_title({"$ref": mapping[UNKNOWN]})]
    every = [parts[_title(each)]["properties"] for each in rest if "$ref" in each]
    shared = {name for name, field in made["properties"].items() if _is_shared(name, field, every)}
    own = _part(made, parts)
    known = {"type": "string", "not": {"enum": sorted(tag for tag in mapping if tag != UNKNOWN)}}
    fields = {name: field for name, field in own["properties"].items() if name in shared}
    own["properties"] = {"type": {"description": "None of the other types", **known}, **fields}
    own["required"] = [name for name in own["required"] if name in own["properties"]]
    return [*rest, _ordered({**own, "x-fallback": True})]


def _is_shared(name: str, field: Schema, every: list[Mapping[str, Schema]]) -> bool:
    """Whether *every* struct has *name* as *field* is."""
    return name != "type" and all(_shape(each.get(name, {})) == _shape(field) for each in every)


def _shape(field: Schema) -> Schema:
    return {keyword: field[keyword] for keyword in ("type", "$ref", "anyOf", "items") if keyword in field}


def _title(reference: Schema) -> str:
    """What *reference* refers to."""
    return str(reference["$ref"]).removeprefix(_PREFIX)


def _used(part: Any, parts: Mapping[str, Schema]) -> set[str]:
    """The titles of all that *part* refers to, at whatever distance."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            if isinstance(each.get("$ref"), str) and _title(each) not in found:
                found.add(_title(each))
                waiting.append(parts[_title(each)])
    return found


def _plain(text: str) -> str:
    """*text* without the marks of a docstring, on one line."""
    return re.sub(r"``?([^`]*)``?", r"\1", " ".join(text.split()))


def _ordered(part: Schema) -> Schema:
    """*part* with its keywords in the order of a file."""
    between = sorted(keyword for keyword in part if keyword not in {*_FIRST, *_LAST})
    order = [keyword for keyword in (*_FIRST, *between, *_LAST) if keyword in part]
    return {keyword: part[keyword] for keyword in order}


# ---------------------------------------------------------------- an example


def _example(part: Schema, parts: Mapping[str, Schema], within: tuple[str, ...] = ()) -> Any:
    """A value that *part* describes; *parts* are what it may refer to, it stands *within* these."""
    if "const" in part:
        return part["const"]
    if "examples" in part:
        return part["examples"][0]
    if "$ref" in part:
        return _example(parts[_title(part)], parts, (*within, _title(part)))
    if "properties" in part:
        return {name: _example(field, parts, within) for name, field in part["properties"].items()}
    if "anyOf" in part:
        return _example(part["anyOf"][0], parts, within)
    if "prefixItems" in part:
        return [_example(each, parts, within) for each in part["prefixItems"]]
    item = part.get("items")
    if item:
        return [] if "$ref" in item and _title(item) in within else [_example(item, parts, within)]
    return part.get("default", True)
