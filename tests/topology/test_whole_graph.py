"""The whole topology in memory: restore, replay, splits, traces, and what bad records do to it."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.codec import Record, text_headers
from pipeline.identity import Identity
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.settings import Settings
from pipeline.testing import EPOCH_MS, Driver
from pipeline.topology import stages
from tests.topology.oracle_run import Run

TABLES = ("sakari.contacts", "users.contacts", "contacts.enriched", "engagement.contacts")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A story of 600 webhooks, played to its end."""
    return Run(tmp_path_factory.mktemp("story") / "ledger", webhooks=600).play().driver


def fresh(**options: Any) -> Driver:
    """A topology for one customer."""
    settings = Settings.model_validate({"tenants": {"acme": {"sakari": [ACCOUNT]}}})
    return Driver(stages(settings, Identity(DEV_IDENTITY_SECRET.encode())), **options)


ACCOUNT = {"account_id": "a1", "client_id": {"env": "UNUSED"}, "client_secret": {"env": "UNUSED"}}


def webhook(**changes: Any) -> bytes:
    """A message that a contact sent us."""
    stamp = {"at": "2030-01-01T00:00:01.000Z"}
    contact = {"id": "c1", "mobile": {"number": "202-555-0101", "country": "US"}}
    payload = {"id": "m1", "outgoing": False, "status": "received", "contact": contact, "created": stamp}
    body = {"accountId": "a1", "eventType": "message-received", "payload": {**payload, "updated": stamp}}
    return orjson.dumps({**body, **changes})


def receive(driver: Driver, body: bytes | None, key: str = "acme:s:c1", **headers: str) -> None:
    """Let *body* stand on ``sources.received``."""
    told = {"source": "webhook", "product": "sakari", "resource": "webhook", "tenant": "acme"}
    told |= {"account": "a1", "verified": "true", "traceparent": TRACE, **headers}
    if body is None:
        record = Record("sources.received", 0, 0, EPOCH_MS, key.encode(), None, ())
        driver.append(record)
    else:
        driver.send("sources.received", key, body, headers=told)


def final(driver: Driver) -> dict[str, dict[str, Any]]:
    """
    The tables as they stand, and the measures of every window but those of tags.

    A message's tags are those that its contact had when it was enriched, and a replay joins with the
    tables as they are now.
    """
    found = {topic: driver.table(topic) for topic in TABLES}
    windows = driver.table("engagement.metrics").items()
    return {**found, "measures": {key: value.measures for key, value in windows if "|tag:" not in key}}


def test_a_replay_ends_in_the_same_tables(played: Driver) -> None:
    """Fresh stages over the kept sources give what the live ones gave."""
    assert len(played.table("contacts.enriched")) > 100
    assert final(played.replay()) == final(played)


def test_a_restart_changes_nothing(played: Driver) -> None:
    """Stores restored from their changelogs hold what they held, and there is nothing left to do."""
    names = ("decode", "enrich", "engagement", "rollup")
    before = {name: played.state(name) for name in names}
    played.restart()
    assert {name: played.state(name) for name in names} == before
    assert all(before.values())
    assert played.run() == 0


def test_one_trace_leads_from_the_webhook_to_the_metrics() -> None:
    """Every record that a webhook caused carries its traceparent."""
    driver = fresh()
    receive(driver, webhook())
    driver.run()
    topics = ("sakari.events", "activity.enriched", "engagement.contacts", "engagement.metrics")
    traces = {
        topic: {text_headers(r.headers)["traceparent"] for r in driver.records(topic)} for topic in topics
    }
    assert traces == {topic: {TRACE} for topic in topics}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "unreadable"),
        (b'{"extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unreadable"),
        (webhook(payload="text"), "invalid"),
        (webhook(accountId="of-somebody-else"), "foreign-account"),
        (None, "null"),
    ],
)
def test_a_bad_record_is_kept_and_holds_nobody_up(body: bytes | None, reason: str) -> None:
    """It becomes a dead letter with its bytes; the next record is processed."""
    driver = fresh()
    receive(driver, body)
    receive(driver, webhook())
    driver.run()
    letters = driver.records("dead-letters")
    assert [letter.value for letter in letters] == [body]
    assert text_headers(letters[0].headers)["dl_reason"] == reason
    assert len(driver.values("activity.enriched")) == 1


def test_a_record_under_another_tenants_key_is_refused() -> None:
    """A key and a tenant that disagree are a dead letter, not somebody else's event."""
    driver = fresh()
    receive(driver, webhook(), key="other:s:c1")
    driver.run()
    assert [text_headers(r.headers)["dl_reason"] for r in driver.records("dead-letters")] == ["wrong-key"]
    assert driver.records("sakari.events") == []


@pytest.mark.parametrize("sizes", [(1,), (2, 3, 1), (1_000,)])
def test_any_split_into_batches_ends_the_same(sizes: tuple[int, ...], tmp_path: Path) -> None:
    """How the input is cut into transactions is not to be seen in the tables."""
    driver = fresh(batches=sizes)
    for number in range(6):
        stamp = {"at": f"2030-01-01T00:00:0{number}.000Z"}
        payload = orjson.loads(webhook())["payload"] | {
            "id": f"m{number}",
            "created": stamp,
            "updated": stamp,
        }
        receive(driver, webhook(payload=payload))
    driver.run()
    assert [value.received for value in driver.table("engagement.contacts").values()] == [6]
