"""
Each public topic as a data contract of the Open Data Contract Standard 3.1 (Bitol, ODCS).

https://bitol-io.github.io/open-data-contract-standard/v3.1.0: one contract a topic, one object of its
schema for each type that may stand there. A ``classification`` says whether a field tells of a person:
``direct`` (who they are, or what they wrote), ``pseudonym`` (stands for one person) or ``none``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

import yaml

from pipeline.contracts.schemas import Schema, schemas
from pipeline.topics import Service, Topic

__all__ = ["as_yaml", "contract"]

Parts: TypeAlias = Mapping[str, Schema]

_VERSION = "v3.1.0"
_TYPES = {"string", "integer", "number", "boolean", "object", "array"}
_FORMATS = {"date-time": "timestamp", "date": "date"}
_DAY_MS = 86_400_000


def contract(topic: Topic, service: Service, version: str, server: str) -> dict[str, Any]:
    """
    The contract of *topic*, kept as *service* promises.

    *version* is that of the released contract, *server* where Kafka is reached, ``host:port``.
    """
    return {
        "apiVersion": _VERSION,
        "kind": "DataContract",
        "id": str(uuid5(NAMESPACE_URL, f"urn:sakari-users-pipeline:topic:{topic.name}")),
        "name": topic.name,
        "version": version,
        "status": "deprecated" if topic.deprecated else "active",
        "domain": "customer-messaging",
        "description": _description(topic),
        "servers": [{"server": "kafka", "type": "kafka", "host": server, "format": "json"}],
        "schema": [*_schema(topic)],
        "team": {"name": topic.owner},
        "support": [{"channel": service.support, "scope": "issues"}],
        "slaProperties": [*_sla(topic, service)],
        "customProperties": [
            {"property": name, "value": value}
            for name, value in (
                ("topic", topic.name),
                ("key", topic.key),
                ("cleanupPolicy", ",".join(topic.cleanup)),
                ("partitionedBy", topic.partitioned_by),
            )
        ],
    }


def as_yaml(made: Mapping[str, Any]) -> str:
    """*made* as a file."""
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=110)


def _description(topic: Topic) -> dict[str, str]:
    told = {
        "purpose": topic.description,
        "usage": f"CloudEvents 1.0 in Kafka's binary mode; the record's key is: {topic.key}.",
        "limitations": "Ignore fields, values and types that you do not know.",
    }
    if topic.is_table:
        told["usage"] += " A record without a value is a tombstone: what its key stood for is gone."
    if topic.deprecated:
        told["limitations"] += f" Ends {topic.deprecated.until}; read {topic.deprecated.instead} instead."
    return told


def _sla(topic: Topic, service: Service) -> Iterator[dict[str, Any]]:
    told = "99 of 100 live records are here so long after they were received"
    yield {"property": "freshness", **_duration(service.freshness_ms), "description": told}
    if topic.retention_ms is None:
        yield {"property": "retention", "value": "unlimited", "description": "the last record of each key"}
    else:
        yield {"property": "retention", **_duration(topic.retention_ms)}
    if topic.deprecated:
        yield {"property": "endOfSupport", "value": topic.deprecated.until}


def _duration(ms: int) -> dict[str, Any]:
    """*ms* in days where they are whole, else in seconds."""
    days, rest = divmod(ms, _DAY_MS)
    return {"value": ms // 1000, "unit": "s"} if rest else {"value": days, "unit": "d"}


# ---------------------------------------------------------------- schema


def _schema(topic: Topic) -> Iterator[dict[str, Any]]:
    made = schemas()
    for name in topic.types:
        head = {"name": name, "physicalName": topic.name, "physicalType": "topic", "logicalType": "object"}
        if name == "raw":
            yield {**head, "description": "The bytes as they came.", "properties": [_RAW]}
        else:
            whole = made[name]
            fields = _properties(whole, whole.get("$defs", {}), ())
            yield {**head, "description": whole["description"], "properties": fields}


_RAW = {
    "name": "value",
    "logicalType": "string",
    "physicalType": "bytes",
    "description": "The whole value, as its source wrote it",
    "classification": "direct",
}


def _properties(part: Schema, parts: Parts, within: tuple[str, ...]) -> list[dict[str, Any]]:
    needed = part.get("required", ())
    return [
        {
            "name": name,
            "required": name in needed and not _is_nullable(field),
            **_property(field, parts, within),
        }
        for name, field in part.get("properties", {}).items()
    ]


def _property(field: Schema, parts: Parts, within: tuple[str, ...]) -> dict[str, Any]:
    """*field* in the standard's words; *within* are the parts around it, which are not repeated."""
    resolved, inside = _resolved(field, parts, within)
    kind = _kind(resolved)
    made: dict[str, Any] = {
        "logicalType": _FORMATS.get(resolved.get("format", ""), kind) if kind == "string" else kind,
        "physicalType": _physical(resolved, kind),
    }
    if told := field.get("description") or resolved.get("description"):
        made["description"] = told
    if examples := field.get("examples"):
        made["examples"] = examples
    if personal := field.get("x-personal-data"):
        made["classification"] = personal
    if unit := field.get("x-unit"):
        made["customProperties"] = [{"property": "unit", "value": unit}]
    if kind == "object" and len(set(inside)) == len(inside):
        made["properties"] = _properties(resolved, parts, inside)
    if kind == "array" and isinstance(resolved.get("items"), dict):
        made["items"] = _property(resolved["items"], parts, inside)
    return {name: value for name, value in made.items() if value != []}


def _resolved(field: Schema, parts: Parts, within: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
    """What *field* is, null aside: the members of a union as one object that has the fields of all."""
    if "$ref" in field:
        title = field["$ref"].rpartition("/")[2]
        return _resolved(parts[title], parts, (*within, title))
    members = [each for each in field.get("anyOf", ()) if each != {"type": "null"}]
    if len(members) == 1:
        return _resolved(members[0], parts, within)
    if not members:
        return field, within
    all_of = [_resolved(each, parts, within) for each in members]
    fields = {name: each for part, _ in all_of for name, each in part.get("properties", {}).items()}
    titles = tuple(title for _, inside in all_of for title in inside[len(within) :])
    return {"type": "object", "properties": fields}, (*within, *titles)


def _is_nullable(field: Schema) -> bool:
    return "null" in field.get("type", ()) or {"type": "null"} in field.get("anyOf", ())


def _kind(part: Schema) -> str:
    told = part.get("type")
    kinds = [told] if isinstance(told, str) else [each for each in told or () if each != "null"]
    return kinds[0] if len(kinds) == 1 and kinds[0] in _TYPES else "string" if "const" in part else "object"


def _physical(part: Schema, kind: str) -> str:
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return "map"
    return str(part.get("format", kind))
