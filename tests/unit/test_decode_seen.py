"""What decode recognises, for how long, and the products that only the settings know."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.identity import resource_name
from pipeline.stages.decode import facts
from pipeline.stages.decode.stores import SEEN, SNAPSHOTS
from tests.unit.decode_records import ACCOUNT, ADA, ADA_KEY, NOON, Task, at, hook, moment, sakari_message


def seen(task: Task) -> list[str]:
    """The keys of all resources whose facts were seen."""
    return [key for key, _ in task.layers.scan(SEEN, "", "~", limit=100_000)]


def test_what_was_seen_of_a_message_is_one_small_entry() -> None:
    """Its key is the message's day and sixteen bytes, which sort by day; its value the kinds of its facts."""
    task = Task()
    task.take(hook("message-sent", sakari_message(status="queued")))
    task.take(hook("message-status", sakari_message()))
    ((key, kinds),) = task.layers.scan(SEEN, "", "~")
    assert key == facts.seen_key(resource_name("sakari", ACCOUNT, "message", "m1"), at(10))
    assert (key[:5], len(key)) == ("21924", 27)
    assert kinds == ("sent", "status:queued", "priced:1:0.0079", "status:delivered")


@given(st.text(), st.text())
def test_different_resources_have_different_keys(one: str, other: str) -> None:
    """Sixteen bytes of a hash tell them apart."""
    assert (facts.seen_key(one, NOON) == facts.seen_key(other, NOON)) == (one == other)


def test_old_days_are_dropped_and_young_ones_kept() -> None:
    """45 days after its message was created a fact is forgotten, not before."""
    task = Task()
    task.take(hook("message-sent", sakari_message(id="old")))
    young = sakari_message(id="young", created=moment(at(11)))
    task.take(hook("message-sent", young))
    task.tick("2030-02-24T00:00:00.000Z")
    assert len(seen(task)) == 2
    task.tick("2030-02-25T00:00:00.000Z")
    assert len(seen(task)) == 1
    assert task.take(hook("message-sent", young)).emit == ()


def test_many_are_dropped_in_chunks() -> None:
    """No call deletes more than 500, and all are gone in the end."""
    task = Task()
    for number in range(1_200):
        task.take(hook("message-sent", sakari_message(id=f"m{number}")))
    task.tick("2030-06-01T00:00:00.000Z")
    assert seen(task) == []


def test_ticks_of_one_day_drop_once() -> None:
    """A second tick of a day has nothing to begin."""
    task = Task()
    assert task.tick("2030-06-01T00:00:00.000Z").more != ()
    assert task.tick("2030-06-01T00:00:01.000Z").more == ()


def test_a_fact_beyond_reach_is_recognised_until_the_next_midnight() -> None:
    """History older than the reach counts once a day at most; the data sheet says so."""
    task = Task()
    task.tick("2030-06-01T00:00:00.000Z")
    body = hook("message-sent", sakari_message())
    assert len(task.take(body, received_at="2030-06-01T01:00:00.000Z").emit) == 3
    task.tick("2030-06-01T23:59:59.000Z")
    assert task.take(body, received_at="2030-06-01T23:59:59.500Z").emit == ()


def test_snapshots_are_dropped_by_day_too() -> None:
    """The digest of a window's statistics is kept as long as facts are."""
    item = {"dialect": "vendor", "windowEnd": at(9), "results": {}}
    task = Task()
    task.users_poll("statistics", item, "acme:u:-:x")
    task.tick("2030-06-01T00:00:00.000Z")
    assert list(task.layers.scan(SNAPSHOTS, "", "~")) == []


SURVEY = {"kind": "scored", "event": {"id": "e1", "at": at(8)}, "who": {"phone": ADA}}


def survey(task: Task, body: object, key: str = "acme:x:-:e1") -> None:
    """An event of the configured product."""
    task.take(orjson.dumps(body), key, product="survey", account="")


def test_a_configured_product_s_event_is_typed_by_its_paths() -> None:
    """Type, id, time and contact stand where the settings say; a repeat is dropped."""
    task = Task()
    survey(task, SURVEY)
    survey(task, SURVEY | {"more": 1})
    (emit,) = task.outcomes[0].emit
    assert task.outcomes[1].emit == ()
    assert (emit.topic, emit.key, emit.occurred_at) == ("sources.events", ADA_KEY, at(8))
    assert (emit.value.source, emit.value.event_type, emit.value.event_id) == ("survey", "scored", "e1")


def test_a_configured_product_s_event_without_number_keeps_its_key() -> None:
    """Nobody is known, so it stands under its own key, as of its arrival."""
    task = Task()
    survey(task, {"kind": "scored"})
    (emit,) = task.outcomes[0].emit
    assert (emit.key, emit.occurred_at) == ("acme:x:-:e1", NOON)
    assert len(emit.value.event_id) == 64


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([1], "object"),
        (SURVEY | {"kind": {}}, "kind"),
        (SURVEY | {"event": {"id": True}}, "event.id"),
        (SURVEY | {"event": {"id": "e", "at": "soon"}}, "event.at"),
        (SURVEY | {"event": {"id": "e", "at": []}}, "event.at"),
        (SURVEY | {"who": {"phone": 1.5}}, "who.phone"),
    ],
)
def test_a_wrong_type_at_a_path_is_refused(body: object, field: str) -> None:
    """The error names the path."""
    with pytest.raises(RecordError, match=field):
        survey(Task(), body)
