"""
What of a record is shown to whoever has not asked for personal data: the rest is replaced by ``***``.

A field is shown if its type says that it tells of no person, or only stands for one
(`pipeline.events.fields`). So what nobody has classified is masked: a field or a fact that came later, a
value of an unknown type, bytes as they came. Keys of records carry no personal data (`pipeline.identity`);
of headers, secrets and numbers are masked.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from msgspec import inspect

from pipeline.events import TYPES
from pipeline.logs import mask

__all__ = ["MASKED", "masked", "masked_headers"]

MASKED = "***"

#: What is shown of a part of a value.
_Shown: TypeAlias = Callable[[Any], Any]

#: Headers that the pipeline makes of what is no secret: they need not be searched, which takes time.
_OURS = frozenset(
    {
        *("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "content-type"),
        *("traceparent", "backfill", "received_at", "scan_started_at", "verified", "change", "tenant"),
        *("dl_stage", "dl_topic", "dl_partition", "dl_offset", "dl_reason", "dl_attempts"),
    }
)

#: What every fact has, also one that came later (`pipeline.events.contacts.UnknownFact`).
_OF_ALL_FACTS = ("type", "tenant", "occurred_at")


def masked(value: Any, type_: str) -> Any:
    """What of *value*, the JSON of a ``ce_type`` *type_*, may be shown; all is masked of an unknown type."""
    return None if value is None else _masker(type_)(value)


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers* without the secrets and numbers that others, such as error texts, may hold."""
    return {name: text if name in _OURS else mask(text) for name, text in headers.items()}


@lru_cache(maxsize=256)
def _masker(type_: str) -> _Shown:
    struct = TYPES.get(type_)
    return _hidden if struct is None else _of(inspect.type_info(struct), None)


def _hidden(value: Any) -> Any:
    return None if value is None else MASKED


def _as_it_is(value: Any) -> Any:
    return value


def _of(kind: inspect.Type, personal: str | None) -> _Shown:
    """What is shown of values of *kind*, which belong to a field classified as *personal*."""
    match kind:
        case inspect.Metadata():
            return _of(kind.type, personal or (kind.extra_json_schema or {}).get("x-personal-data"))
        case inspect.StructType():
            return _of_struct(kind)
        case inspect.UnionType():
            return _of_union(kind, personal)
        case inspect.VarTupleType() | inspect.ListType():
            return _of_list(_of(kind.item_type, personal))
        case inspect.NoneType() | inspect.BoolType() | inspect.IntType() | inspect.FloatType():
            return _hidden if personal == "direct" else _scalar
        case _:
            return _as_it_is if personal in {"none", "pseudonym"} else _hidden


def _scalar(value: Any) -> Any:
    """A number or a boolean; text in its place came later, and nobody has classified it."""
    return value if value is None or isinstance(value, bool | int | float) else MASKED


def _of_list(item: _Shown) -> _Shown:
    def shown(value: Any) -> Any:
        return [item(each) for each in value] if isinstance(value, list) else _hidden(value)

    return shown


def _of_struct(kind: inspect.StructType) -> _Shown:
    fields = {field.encode_name: _of(field.type, None) for field in kind.fields}
    if kind.tag_field is not None:
        fields[kind.tag_field] = _as_it_is

    def shown(value: Any) -> Any:
        if not isinstance(value, dict):
            return _hidden(value)
        return {name: fields.get(name, _hidden)(each) for name, each in value.items()}

    return shown


def _of_union(kind: inspect.UnionType, personal: str | None) -> _Shown:
    structs = [each for each in kind.types if isinstance(each, inspect.StructType)]
    others = [each for each in kind.types if not isinstance(each, inspect.StructType | inspect.NoneType)]
    if not structs:
        return _of(others[0], personal) if len(others) == 1 else _of(inspect.AnyType(), personal)
    if len(structs) == 1 and not others:
        return _of_struct(structs[0])
    members = {str(each.tag): _of_struct(each) for each in structs}

    def shown(value: Any) -> Any:
        tag = value.get(structs[0].tag_field) if isinstance(value, dict) else None
        return members[tag](value) if tag in members else _unknown_fact(value)

    return shown


def _unknown_fact(value: Any) -> Any:
    if not isinstance(value, dict):
        return _hidden(value)
    return {name: each if name in _OF_ALL_FACTS else _hidden(each) for name, each in value.items()}
