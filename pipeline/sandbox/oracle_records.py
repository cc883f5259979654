"""
What the oracle takes from the pipeline's topics: Kafka records in, flat rows out.

A record is a mapping ``{topic, partition, offset, timestamp, key, value, headers}``: *key* text or bytes;
*value* bytes, text, an object that was JSON, or None; *headers* a mapping or pairs, texts or bytes. Nothing
of the pipeline's own code is used: the fields are those that its topics promise their readers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import orjson

__all__ = ["MEASURES", "READS", "TABLES", "TOTALS", "Rows", "rows_of"]

Rows: TypeAlias = dict[str, list[dict[str, Any]]]
Record: TypeAlias = Mapping[str, Any]

#: the topics that `rows_of` understands; all of them are needed
READS: Final = (
    "sources.received",
    "activity.enriched",
    "contacts.enriched",
    "engagement.contacts",
    "engagement.metrics",
    "dead-letters",
)
#: the counting measures; ``cost`` and ``reply_seconds`` are no counts
MEASURES: Final = (
    "sent",
    "delivered",
    "failed",
    "segments",
    "contacts_messaged",
    "replies",
    "repliers",
    "received",
    "opt_outs",
    "opt_ins",
    "conversations_started",
    "conversations_closed",
    "contacts_engaged",
)
#: a contact's lifetime totals
TOTALS: Final = (
    *(name for name in MEASURES if name not in ("contacts_messaged", "repliers", "contacts_engaged")),
    "cost",
)
_TEXT: Final = "VARCHAR"
_NUMBER: Final = "BIGINT"
_TAGS: Final = (
    'STRUCT(folded VARCHAR, "name" VARCHAR, systems VARCHAR[], tag_id VARCHAR, location_id VARCHAR, '
    "colour VARCHAR, description VARCHAR)[]"
)
#: table -> column -> DuckDB type
TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "activities": {
        "partition": _NUMBER,
        "position": _NUMBER,
        "received_ms": _NUMBER,
        "backfill": "BOOLEAN",
        "traceparent": _TEXT,
        "tenant": _TEXT,
        "contact_key": _TEXT,
        "fact_id": _TEXT,
        "type": _TEXT,
        "account_id": _TEXT,
        "occurred_ms": _NUMBER,
        "contact_id": _TEXT,
        "conversation_id": _TEXT,
        "message_id": _TEXT,
        "outgoing": "BOOLEAN",
        "created_ms": _NUMBER,
        "status": _TEXT,
        "segments": _NUMBER,
        "price": _TEXT,
        "template": _TEXT,
        "job": _TEXT,
        "campaign": _TEXT,
        "number": _TEXT,
        "enriched": "BOOLEAN",  #: the contact was known
        "tags": _TAGS,
        "tag_dimensions": "VARCHAR[]",
        "own_dimensions": "VARCHAR[]",
    },
    "enriched": {
        "contact_key": _TEXT,
        "position": _NUMBER,
        "partition": _NUMBER,
        "tenant": _TEXT,
        "natives": "VARCHAR[]",  #: null: a tombstone
        "tags": _TAGS,
    },
    "metrics": {
        "window_key": _TEXT,
        "position": _NUMBER,
        "tenant": _TEXT,
        "dimension": _TEXT,
        "width": _TEXT,
        "start_ms": _NUMBER,
        "end_ms": _NUMBER,
        "revision": _NUMBER,
        "closed": "BOOLEAN",
        **dict.fromkeys(MEASURES, _NUMBER),
        "cost": _TEXT,
        "reply_seconds": "MAP(VARCHAR, BIGINT)",
        **dict.fromkeys(("delivery", "failure", "reply", "opt_out"), "DOUBLE"),
        **dict.fromkeys(("p50", "p90", "p99"), _NUMBER),
        "value": _TEXT,  #: the whole of it, its fields in order
    },
    "received": {
        "native_key": _TEXT,
        "received_ms": _NUMBER,
        "traceparent": _TEXT,
        "source": _TEXT,
        "product": _TEXT,
        "resource": _TEXT,
    },
    "engaged": {"contact_key": _TEXT, "position": _NUMBER, **dict.fromkeys(TOTALS, _TEXT)},
    "dead_letters": {
        "stage": _TEXT,
        "reason": _TEXT,
        "topic": _TEXT,
        "partition": _NUMBER,
        "position": _NUMBER,
    },
}


def rows_of(records: Iterable[Record]) -> Rows:
    """The rows of `TABLES` that *records* amount to; records of other topics are passed by."""
    rows: Rows = {table: [] for table in TABLES}
    for record in records:
        if reader := _READERS.get(record["topic"]):
            table, read = reader
            rows[table].append(read(record))
    return rows


def _activity(record: Record) -> dict[str, Any]:
    headers, value = _headers(record), _value(record)
    event, contact = value["event"], value.get("contact")
    message = event.get("message") or {}
    tags = (contact or {}).get("tags") or []
    return {
        "partition": record["partition"],
        "position": record["offset"],
        "received_ms": record["timestamp"],
        "backfill": "backfill" in headers,
        "traceparent": headers.get("traceparent"),
        "tenant": value["tenant"],
        "contact_key": value["contact_key"],
        "fact_id": value["fact_id"],
        "type": event["type"],
        "account_id": event.get("account_id") or event.get("location_id"),
        "occurred_ms": _ms(event["occurred_at"]),
        "contact_id": message.get("contact_id") or event.get("contact_id"),
        "conversation_id": message.get("conversation_id") or event.get("conversation_id"),
        "message_id": message.get("id"),
        "outgoing": message.get("outgoing"),
        "created_ms": _ms(message.get("created_at")),
        "status": event.get("status"),
        "segments": event.get("segments"),
        "price": event.get("price"),
        "template": message.get("template_id"),
        "job": message.get("job_id"),
        "campaign": message.get("campaign_id"),
        "number": message.get("number") or event.get("number"),
        "enriched": contact is not None,
        "tags": [_tag(tag) for tag in tags],
        "tag_dimensions": _tag_dimensions(tags),
        "own_dimensions": _own_dimensions(message or event),
    }


def _tag_dimensions(tags: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"tag:id:{quote(tag['tag_id'], safe='')}"
        if tag["tag_id"]
        else f"tag:name:{quote(tag['folded'], safe='')}"
        for tag in tags
    ]


def _own_dimensions(told: Mapping[str, Any]) -> list[str]:
    fields = {"job": "job_id", "campaign": "campaign_id", "template": "template_id", "number": "number"}
    return [f"{kind}:{quote(told[field], safe='')}" for kind, field in fields.items() if told.get(field)]


def _tag(tag: Mapping[str, Any]) -> dict[str, Any]:
    names = ("folded", "name", "systems", "tag_id", "location_id", "colour", "description")
    return {name: tag.get(name) for name in names}


def _enriched(record: Record) -> dict[str, Any]:
    value = _value(record)
    row = {
        "contact_key": _text(record["key"]),
        "position": record["offset"],
        "partition": record["partition"],
    }
    if value is None:
        return {**row, "tenant": None, "natives": None, "tags": None}
    natives = [f"{native['system']}:{native['contact_id']}" for native in value["natives"]]
    tags = [_tag(tag) for tag in value["tags"]]
    return {**row, "tenant": value["tenant"], "natives": sorted(natives), "tags": tags}


def _metrics(record: Record) -> dict[str, Any]:
    value = _value(record)
    if value is None:
        return {"window_key": _text(record["key"]), "position": record["offset"], "revision": -1}
    measures = value["measures"]
    return {
        "window_key": _text(record["key"]),
        "position": record["offset"],
        **{name: value[name] for name in ("tenant", "dimension", "width", "revision", "closed")},
        "start_ms": _ms(value["start"]),
        "end_ms": _ms(value["end"]),
        **{name: measures[name] for name in (*MEASURES, "cost", "reply_seconds")},
        **{name: value["ratios"][name] for name in ("delivery", "failure", "reply", "opt_out")},
        **{name: value[f"reply_seconds_{name}"] for name in ("p50", "p90", "p99")},
        "value": orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode(),
    }


def _received(record: Record) -> dict[str, Any]:
    headers = _headers(record)
    return {
        "native_key": _text(record["key"]),
        "received_ms": record["timestamp"],
        **{name: headers.get(name) for name in ("traceparent", "source", "product", "resource")},
    }


def _engaged(record: Record) -> dict[str, Any]:
    value = _value(record) or {}
    row = {"contact_key": _text(record["key"]), "position": record["offset"]}
    return row | {name: str(value[name]) for name in TOTALS if name in value}


def _dead_letter(record: Record) -> dict[str, Any]:
    headers = defaultdict(str, _headers(record))
    return {
        "stage": headers["dl_stage"],
        "reason": headers["dl_reason"],
        "topic": headers["dl_topic"],
        "partition": int(headers["dl_partition"] or -1),
        "position": int(headers["dl_offset"] or -1),
    }


_READERS: Final[Mapping[str, tuple[str, Callable[[Record], dict[str, Any]]]]] = {
    "sources.received": ("received", _received),
    "activity.enriched": ("activities", _activity),
    "contacts.enriched": ("enriched", _enriched),
    "engagement.metrics": ("metrics", _metrics),
    "engagement.contacts": ("engaged", _engaged),
    "dead-letters": ("dead_letters", _dead_letter),
}


def _headers(record: Record) -> dict[str, str]:
    headers = record.get("headers") or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {_text(name): _text(value) for name, value in pairs}


def _value(record: Record) -> Any:
    value = record["value"]
    return orjson.loads(value) if isinstance(value, bytes | str) else value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _ms(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1_000)
