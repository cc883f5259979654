"""What decode recognises, for how long, and the products that only the settings know."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.stages.decode import facts
from pipeline.stages.decode.stores import SEEN, SNAPSHOTS
from tests.unit.decode_records import ADA, ADA_KEY, NOON, Task, at, hook, moment, sakari_message


def seen(task: Task) -> list[str]:
    """All keys of seen facts."""
    return [key for key, _ in task.layers.scan(SEEN, "", "~", limit=100_000)]


def test_a_seen_fact_takes_about_forty_bytes() -> None:
    """A day and sixteen bytes of the id, in text that sorts by day."""
    key = facts.seen_key("ab" * 32, facts.day_of(NOON))
    assert key == "21924q6urq6urq6urq6urq6urqw"
    assert len(key) == 27


@given(
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_different_facts_have_different_keys(one: str, other: str) -> None:
    """Sixteen bytes tell them apart."""
    same = facts.seen_key(one, 1) == facts.seen_key(other, 1)
    assert same == (one[:32] == other[:32])


def test_old_days_are_dropped_and_young_ones_kept() -> None:
    """45 days after its message was created a fact is forgotten, not before."""
    task = Task()
    task.take(hook("message-sent", sakari_message(id="old")))
    young = sakari_message(id="young", created=moment(at(11)))
    task.take(hook("message-sent", young))
    task.tick("2030-02-24T00:00:00.000Z")
    assert len(seen(task)) == 6
    task.tick("2030-02-25T00:00:00.000Z")
    assert len(seen(task)) == 3
    assert task.take(hook("message-sent", young)).emit == ()


def test_many_are_dropped_in_chunks() -> None:
    """No call deletes more than 500, and all are gone in the end."""
    task = Task()
    for number in range(400):
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
