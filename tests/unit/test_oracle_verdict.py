"""The oracle on one message and its reply, every record written by hand."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.oracle import OracleSettings, Report, verify
from pipeline.sandbox.oracle_records import MEASURES, rows_of

SENT_MS = 1_893_456_000_000  # 2030-01-01T00:00:00Z
KEY = "acme:s:c1"
Record = dict[str, Any]


def time(ms: int) -> str:
    """An instant as topics carry it."""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(topic: str, offset: int, key: str, value: Any, received_ms: int = SENT_MS + 100) -> Record:
    """A record as the reader hands it over."""
    return {
        "topic": topic,
        "partition": 0,
        "offset": offset,
        "timestamp": received_ms,
        "key": key.encode(),
        "value": orjson.dumps(value) if value is not None else None,
        "headers": [("traceparent", b"t"), ("source", b"webhook"), ("resource", b"webhook")],
    }


def activity(offset: int, kind: str, message_id: str, at_ms: int, **fields: Any) -> Record:
    """A message fact of the contact, who has no tags."""
    message = {"id": message_id, "conversation_id": "v1", "contact_id": "c1", "outgoing": kind != "received"}
    created_ms = SENT_MS if message_id == "out" else at_ms
    event = {"type": f"sakari.message.{kind}.v1", "account_id": "a1", "occurred_at": time(at_ms), **fields}
    event["message"] = {**message, "created_at": time(created_ms)}
    value = {"tenant": "acme", "contact_key": KEY, "fact_id": f"{kind}{offset}", "event": event}
    return record("activity.enriched", offset, KEY, value)


def window(offset: int, width: str, end_ms: int, **told: Any) -> Record:
    """All messages of the hour or day that begins with the message."""
    measures = dict.fromkeys(MEASURES, 0) | {"sent": 1, "delivered": 1, "segments": 1, "contacts_messaged": 1}
    measures |= {"replies": 1, "repliers": 1, "received": 1, "contacts_engaged": 1}
    value = {"tenant": "acme", "dimension": "all", "width": width, "revision": 1, "closed": False}
    value |= {"start": time(SENT_MS), "end": time(end_ms)}
    value["measures"] = measures | {"cost": "0.0079", "reply_seconds": {"60": 1}} | told
    value["ratios"] = {"delivery": 1.0, "failure": 0.0, "reply": 1.0, "opt_out": 0.0}
    value |= {f"reply_seconds_p{percent}": 60 for percent in (50, 90, 99)}
    return record("engagement.metrics", offset, f"acme|all|{width}|{time(SENT_MS)}", value)


def records(**told: Any) -> list[Record]:
    """What a pipeline writes; *told* are measures that it has wrong."""
    totals = dict.fromkeys(MEASURES, 0) | {
        "sent": 1,
        "delivered": 1,
        "segments": 1,
        "received": 1,
        "replies": 1,
    }
    native = {"system": "sakari", "contact_id": "c1"}
    return [
        record("sources.received", 0, KEY, {}),
        activity(0, "sent", "out", SENT_MS),
        activity(1, "status-changed", "out", SENT_MS + 5, status="delivered"),
        activity(2, "priced", "out", SENT_MS + 5, segments=1, price="0.0079"),
        activity(3, "received", "in", SENT_MS + 60_000),
        window(0, "1h", SENT_MS + 3_600_000, **told),
        window(1, "1d", SENT_MS + 86_400_000, **told),
        record("contacts.enriched", 0, KEY, {"tenant": "acme", "natives": [native], "tags": []}),
        record("engagement.contacts", 0, KEY, {**totals, "cost": "0.0079"}),
    ]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A message that was delivered and answered a minute later."""
    whose = {"tenant": "acme", "account_id": "a1", "contact_id": "c1"}
    with Ledger(tmp_path / "ledger", clock=lambda: SENT_MS) as written:
        zone = {"time_zone": "UTC", "region": "US", "dialect": "catalogue"}
        written.note("tenants", tenant="acme", **zone, account_id="a1", location_id="l1")
        written.note("contacts", **whose, system="sakari", number=None, country=None, tags=[], removed=False)
        for message_id, at_ms, status in (
            ("out", SENT_MS, "delivered"),
            ("in", SENT_MS + 60_000, "received"),
        ):
            told = {"message_id": message_id, "outgoing": message_id == "out", "status": status}
            told |= {"created_ms": at_ms, "updated_ms": at_ms + 5, "segments": 1, "price": "0.0079"}
            written.note("messages", **whose, **told, conversation_id="v1")
            hook = {"webhook": message_id, "resource_id": message_id, "updated_ms": at_ms + 5}
            written.note("webhooks", **hook, tenant="acme", product="sakari")
            written.note("deliveries", webhook=message_id, at_ms=SENT_MS + 200, accepted=True, attempts=1)
    return tmp_path / "ledger"


def verdict(ledger: Path, given: list[Record]) -> Report:
    """What the oracle says an hour later, with a day's grace."""
    settings = OracleSettings(grace_s=86_400)
    return verify(ledger, given, identity_secret=b"secret", settings=settings, now_ms=SENT_MS + 3_000_000)


def late(given: list[Record], by_ms: int) -> list[Record]:
    """*given*, received so much later."""
    return [{**each, "timestamp": each["timestamp"] + by_ms} for each in given]


def test_a_webhook_that_was_answered_cannot_come_later(ledger: Path) -> None:
    """What arrives after the last attempt was answered does not come from it."""
    assert verdict(ledger, late(records(), 5_000)).failed_checks["webhook's arrival"] > 0


def test_a_webhook_that_nobody_answered_may_come_later(ledger: Path) -> None:
    """A receiver that was stopped reads it when it goes on, long after the sender has given up."""
    file = ledger / "deliveries.jsonl"
    unanswered = [{**orjson.loads(line), "accepted": False} for line in file.read_bytes().splitlines()]
    file.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in unanswered))
    assert "webhook's arrival" not in verdict(ledger, late(records(), 5_000)).failed_checks


def test_right_records_agree(ledger: Path) -> None:
    """Nothing differs, and so little proves nothing."""
    report = verdict(ledger, records())
    assert report.failed_checks == {}
    assert not report.passed
    assert {"1,000 comparisons", "closed windows", "late facts"} <= set(report.uncovered)


@pytest.mark.parametrize("measure", MEASURES)
def test_each_measure_is_compared(ledger: Path, measure: str) -> None:
    """A measure that is wrong is named in both windows, and what it is."""
    report = verdict(ledger, records(**{measure: 7}))
    assert report.failed_checks[f"measure {measure}"] == 2
    assert "7" in {example["actual"] for example in report.examples}


@pytest.mark.parametrize(("measure", "wrong"), [("cost", "0.0080"), ("reply_seconds", {"61": 1})])
def test_cost_and_histogram_are_compared(ledger: Path, measure: str, wrong: Any) -> None:
    """A tenth of a cent, and a neighbouring bucket, are seen."""
    assert verdict(ledger, records(**{measure: wrong})).failed_checks[f"measure {measure}"] == 2


CHANGES: dict[str, tuple[str, Callable[[list[Record]], list[Record]]]] = {
    "a fact is missing": ("message fact missing", lambda all_: [*all_[:3], *all_[4:]]),
    "a fact came twice": ("message fact twice", lambda all_: [*all_, {**all_[2], "offset": 9}]),
    "a fact never was": (
        "message fact invented",
        lambda all_: [*all_, activity(9, "status-changed", "out", SENT_MS, status="error")],
    ),
    "a time is wrong": (
        "message fact's time",
        lambda all_: [
            *all_[:2],
            activity(1, "status-changed", "out", SENT_MS + 6, status="delivered"),
            *all_[3:],
        ],
    ),
    "it came before it was sent": (
        "webhook's arrival",
        lambda all_: [all_[0], {**all_[1], "timestamp": SENT_MS - 5_000}, *all_[2:]],
    ),
    "nothing was received": ("activity's source", lambda all_: all_[1:]),
    "a contact is missing": (
        "enriched contact",
        lambda all_: [one for one in all_ if one["topic"] != "contacts.enriched"],
    ),
    "a contact is gone": (
        "enriched contact",
        lambda all_: [*all_, record("contacts.enriched", 9, KEY, None)],
    ),
    "a total is missing": ("contact's sent", lambda all_: all_[:-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_difference_is_named(ledger: Path, change: str) -> None:
    """The check that is about it finds it."""
    check, made = CHANGES[change]
    assert verdict(ledger, made(records())).failed_checks.get(check, 0) > 0


def test_a_folder_without_a_ledger_is_told(tmp_path: Path) -> None:
    """The folder is named."""
    with pytest.raises(ConfigError, match="holds no ledger"):
        verdict(tmp_path, [])


def test_records_of_other_topics_are_passed_by() -> None:
    """A reader may hand over more than is needed."""
    assert not any(rows_of([record("clock.ticks", 0, "0", {})]).values())
