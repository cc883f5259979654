"""A dead letter as it is shown: masked unless asked for, with its attempts and what was decided of it."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from pipeline.codec import text_headers
from pipeline.events import TYPES
from pipeline.events.audit import AuditEntry
from pipeline.instants import from_ms
from pipeline.logs import mask
from pipeline.masking import MASKED, masked, masked_headers
from pipeline.runtime.dead_letters import history, own_headers
from pipeline.runtime.letters import Edit, Letter
from pipeline.topics import Topic

__all__ = ["shown"]

#: Names of fields of what came in raw that are shown as they are; others might be data.
_NAME = re.compile(r"[A-Za-z_][A-Za-z_.-]{0,40}")


def shown(
    topics: Mapping[str, Topic],
    letter: Letter,
    decision: AuditEntry | None,
    edited: Edit | None,
    *,
    unmask: bool,
) -> dict[str, Any]:
    """
    All there is to know of *letter*, as JSON.

    Values are masked by their type, of what came in raw all but the names of fields, unless *unmask*.
    """
    headers = text_headers(own_headers(letter))
    type_ = _type_of(topics, letter, headers)
    attempts = [{**each, "error": mask(each["error"])} for each in _plain(history(letter.headers))]
    return {
        "id": letter.id,
        "state": "open" if decision is None else decision.action.rpartition(".")[2],
        "decided_by": decision and decision.by,
        "decided_at": decision and decision.at,
        "why": decision and decision.why,
        "redrive": decision and decision.job,
        "stage": letter.stage,
        "reason": letter.reason,
        "error": mask(letter.error),
        "attempts": letter.attempts,
        "topic": letter.topic,
        "partition": letter.origin_partition,
        "offset": letter.origin_offset,
        "received_at": from_ms(letter.timestamp),
        "tenant": letter.tenant,
        "key": letter.key_text,
        "type": type_,
        "history": attempts,
        "headers": headers if unmask else masked_headers(headers),
        "value": _value(letter.value, type_, unmask=unmask),
        "edit": None
        if edited is None
        else {**(_value(edited.value, type_, unmask=unmask) or {}), "by": edited.by, "at": edited.at},
    }


def _type_of(topics: Mapping[str, Topic], letter: Letter, headers: Mapping[str, str]) -> str:
    """The ``ce_type`` of what *letter* was: its own, else the only one of its topic."""
    topic = topics.get(letter.topic)
    only = topic.types[0] if topic is not None and len(topic.types) == 1 else ""
    return headers.get("ce_type") or only


def _plain(attempts: Any) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = msgspec.to_builtins(list(attempts))
    return plain


def _value(raw: bytes | None, type_: str, *, unmask: bool) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        json = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode(errors="replace") if unmask else MASKED
        return {"bytes": len(raw), "masked": not unmask, "json": None, "text": text}
    if not unmask:
        json = masked(json, type_) if type_ in TYPES else _shape(json)
    return {"bytes": len(raw), "masked": not unmask, "json": json, "text": None}


def _shape(value: Any) -> Any:
    """*value* with its fields' names alone."""
    if isinstance(value, dict):
        return {name if _NAME.fullmatch(name) else MASKED: _shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return value if value is None or isinstance(value, bool) else MASKED
