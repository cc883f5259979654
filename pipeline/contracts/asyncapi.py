"""
The public topics as one AsyncAPI 3.0 document, from the pipeline's side: it sends what others receive.

Channels, operations and messages carry Kafka bindings 0.5.0; the headers of a message are CloudEvents 1.0
in Kafka's binary mode. Schemas are those of `pipeline.contracts.schemas` under ``components.schemas``, each
part once, in the dialect that AsyncAPI knows, a superset of JSON Schema draft 07.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.contracts.schemas import Schema, example, schemas
from pipeline.topics import Profile, Topic, Topics

__all__ = ["document"]

_BINDING = "0.5.0"
_REF = "#/components/schemas/"
_RAW = {"description": "The bytes as they came, JSON in most cases.", "type": "string", "format": "binary"}
_TOMBSTONE = "tombstone"
_SERVER = {
    "host": "{bootstrapServers}",
    "protocol": "kafka",
    "description": "The Kafka cluster; its operator tells address and how to authenticate.",
    "variables": {"bootstrapServers": {"default": "localhost:9092", "description": "host:port"}},
}

#: Header -> what it says, of every record of a public topic.
_HEADERS = {
    "ce_specversion": {"type": "string", "const": "1.0", "description": "CloudEvents' version"},
    "ce_id": {"type": "string", "description": "Which event this is: the same whenever it is told again"},
    "ce_source": {"type": "string", "format": "uri-reference", "description": "What wrote the record"},
    "ce_type": {"type": "string", "description": "The type of the value; ends in its major version"},
    "ce_time": {"type": "string", "format": "date-time", "description": "When it happened"},
    "ce_subject": {"type": "string", "description": "Whom or what it is about"},
    "content-type": {"type": "string", "const": "application/json"},
    "traceparent": {"type": "string", "description": "W3C trace context, made by the source"},
    "ce_sunset": {"type": "string", "format": "date-time", "description": "Of a deprecated topic: its end"},
    "ce_successor": {"type": "string", "description": "Of a deprecated topic: the one to read instead"},
}


def document(topics: Topics, profile: Profile, version: str) -> dict[str, Any]:
    """The document of all public topics of *topics*, sized as *profile* has it; *version* is its own."""
    public = [topic for topic in topics.values() if topic.visibility == "public"]
    types = sorted({name for topic in public for name in topic.types if name != "raw"})
    return {
        "asyncapi": "3.0.0",
        "id": "urn:sakari-users-pipeline",
        "info": {
            "title": "Sakari and Users API event streams",
            "version": version,
            "description": "Topics that other teams subscribe to. Objects are open: ignore fields, values and"
            " types that you do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": _SERVER},
        "channels": {topic.name: _channel(topics, topic, profile) for topic in public},
        "operations": {_operation_id(topic): _operation(topic) for topic in public},
        "components": {
            "schemas": _parts(types),
            "messages": {
                **{name: _message(name) for name in types},
                **{f"{topic.name}.v1": _raw(topic) for topic in public if topic.types == ("raw",)},
                _TOMBSTONE: _tombstone(),
            },
        },
    }


def _headers(type_: str = "") -> Schema:
    """The schema of the headers of a record of *type_*, by default of any type."""
    fields: dict[str, Any] = {name: dict(field) for name, field in _HEADERS.items()}
    if type_:
        fields["ce_type"]["const"] = type_
    needed = ["ce_specversion", "ce_id", "ce_source", "ce_type"]
    return {"type": "object", "required": needed, "properties": fields}


def _channel(topics: Topics, topic: Topic, profile: Profile) -> dict[str, Any]:
    configs: dict[str, Any] = {"cleanup.policy": list(topic.cleanup)}
    if topic.retention_ms is not None:
        configs["retention.ms"] = topic.retention_ms
    kafka = {
        "topic": topic.name,
        "partitions": topics.partitions(topic.name, profile),
        "replicas": profile.replication,
        "topicConfiguration": configs,
        "bindingVersion": _BINDING,
    }
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"{topic.description} Key: {topic.key}.{_end(topic)}",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _names(topic)},
        "bindings": {"kafka": kafka},
        "x-owner": topic.owner,
        "x-personal-data": list(topic.personal),
    }


def _end(topic: Topic) -> str:
    end = topic.deprecated
    return f" Ends {end.until}; read {end.instead} instead." if end else ""


def _operation_id(topic: Topic) -> str:
    return f"send.{topic.name}"


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": "send",
        "channel": {"$ref": channel},
        "summary": topic.description,
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in _names(topic)],
        "bindings": {"kafka": {"bindingVersion": _BINDING}},
    }


def _names(topic: Topic) -> list[str]:
    """The messages of *topic*, by what they are called among the components."""
    if topic.types == ("raw",):
        return [f"{topic.name}.v1"]
    return [*topic.types, *([_TOMBSTONE] if topic.is_table else [])]


def _message(name: str) -> dict[str, Any]:
    payload = {"$ref": f"{_REF}{name}"}
    described = str(schemas()[name].get("description", name))
    made = _with_headers(name, described, payload, _headers(name))
    return {**made, "examples": [{"name": "example", "payload": example(name)}]}


def _raw(topic: Topic) -> dict[str, Any]:
    name = f"{topic.name}.v1"
    return _with_headers(name, topic.description, _RAW, _headers())


def _tombstone() -> dict[str, Any]:
    told = "What was known under this key is gone; ce_type is that of what it removes."
    return _with_headers(_TOMBSTONE, told, {"type": "null"}, _headers())


def _with_headers(name: str, described: str, payload: Schema, told: Schema) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": described,
        "contentType": "application/json",
        "headers": told,
        "payload": payload,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": "Decides the partition; see the channel."},
                "bindingVersion": _BINDING,
            }
        },
    }


# ---------------------------------------------------------------- schemas in AsyncAPI's dialect


def _parts(types: Iterable[str]) -> dict[str, Schema]:
    """The schemas of *types* and all that they refer to, each once."""
    found: dict[str, Schema] = {}
    made = schemas()
    for name in types:
        whole = made[name]
        parts = {name: whole, **whole.pop("$defs", {})}
        for title, part in parts.items():
            plain = _dialect(part)
            if found.setdefault(title, plain) != plain:
                raise ValueError(f"two parts of the schemas are called {title}")
    return found


def _dialect(part: Any) -> Any:
    """*part* of a schema of 2020-12 as draft 07 has it, referring to the document's components."""
    if isinstance(part, list):
        return [_dialect(each) for each in part]
    if not isinstance(part, Mapping):
        return part
    made: Schema = {}
    for keyword, value in part.items():
        match keyword:
            case "$schema" | "$id":
                continue
            case "$ref":
                made[keyword] = value.replace("#/$defs/", _REF)
            case "examples" | "default" | "const":
                made[keyword] = value
            case _:
                made[keyword] = _dialect(value)
    return made
