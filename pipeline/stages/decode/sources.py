"""Events of products that only the settings know: where their JSON carries what is told by dotted paths."""

import hashlib
from typing import Any

import msgspec

from pipeline.events import SourceEvent
from pipeline.identity import resource_name
from pipeline.instants import Time
from pipeline.stages.decode.config import SourceConfig
from pipeline.stages.decode.intake import Intake
from pipeline.stages.decode.parse import as_time, body_text, decoded, invalid

__all__ = ["take"]

_ANY = msgspec.json.Decoder(dict[str, Any])


def take(intake: Intake, source: SourceConfig) -> None:
    """
    Decode one event of a configured product.

    Raises:
        RecordError: it cannot be read, or what stands at a path has the wrong type.
    """
    record = intake.record
    body = decoded(_ANY, record.body)
    text = body_text(record.body)
    event_id = _text(body, source.id_path) or hashlib.sha256(record.body).hexdigest()
    told_at = _time(body, source.time_path)
    number, country = _text(body, source.phone_path), _text(body, source.country_path)
    mobile = intake.mobile(number, country)
    value = SourceEvent(
        tenant=intake.tenant,
        source=record.product,
        event_type=_text(body, source.type_path) or "",
        event_id=event_id,
        occurred_at=told_at or intake.received_at,
        body=text,
    )
    key = intake.keys.contact(intake.tenant, mobile) if mobile else intake.event.key
    name = resource_name(record.product, intake.tenant, "event", event_id)
    intake.fact("sources.events", key, value, name, value.event_type)


def _at(body: dict[str, Any], path: str) -> Any:
    """What stands at the dotted *path*; None where nothing does."""
    found: Any = body if path else None
    for name in path.split(".") if path else ():
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _text(body: dict[str, Any], path: str) -> str | None:
    found = _at(body, path)
    if found is None or found == "":
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise invalid(path, "is neither text nor a whole number")
    return str(found)


def _time(body: dict[str, Any], path: str) -> Time | None:
    found = _at(body, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise invalid(path, "is no date and time")
    return as_time(found, path)
