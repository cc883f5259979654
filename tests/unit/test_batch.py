"""The pure core: what one batch of records turns into."""

import pytest

from pipeline.codec import Record
from pipeline.errors import BrokerError, RecordError, StageFailed
from pipeline.instants import from_ms
from pipeline.runtime.batch import Batch, Processor
from pipeline.runtime.state import Memory
from pipeline.stage import Emit, Event, Outcome, Put, Reject
from tests.unit.runtime_toys import (
    COUNTS,
    FAN_OUT,
    STAGE,
    closed,
    codec,
    headers_of,
    outputs,
    processor,
    record,
    take,
)

ELSEWHERE = (
    ("dl_topic", b"out"),
    ("dl_partition", b"0"),
    ("dl_offset", b"1"),
    ("dl_attempts", b"1"),
)


def test_each_step_sees_those_before_it() -> None:
    """Within a batch a step reads what earlier steps wrote; events are all kept, in order."""
    batch = closed(processor(), "a", "a", "a")
    assert [output.value for output in outputs(batch, "out")] == [b'{"at":"1"}', b'{"at":"2"}', b'{"at":"3"}']
    assert (batch.records, batch.next_offsets) == (3, {"in": 3})


def test_writes_and_table_emits_collapse_to_the_last() -> None:
    """One changelog entry a store key, one record a table key: the last of the transaction."""
    batch = closed(processor(), "a", "a", "delete", "a")
    assert batch.changes.by_store == {"counts": [(b"k", b"\x01")]}
    assert [output.value for output in outputs(batch, "table")] == [b'{"at":"1"}']


def test_the_next_batch_builds_on_one_in_flight() -> None:
    """While a batch is committed the next sees its writes; discarding forgets both."""
    one = processor()
    closed(one, "a")
    assert outputs(closed(one, "a"), "table")[0].value == b'{"at":"2"}'
    one.discard()
    assert outputs(closed(one, "a"), "table")[0].value == b'{"at":"1"}'


def test_a_committed_batch_stands_in_the_backend() -> None:
    """What is applied to the backend is what a new task reads."""
    backend = Memory()
    one = processor(backend)
    backend.apply(closed(one, "a", "a").changes)
    one.committed()
    assert outputs(closed(processor(backend), "a"), "table")[0].value == b'{"at":"3"}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("refuse", "refused"),
        ("bug", "unexpected"),
        ("large", "too-large"),
        ("large state", "too-large"),
        ("bad state", "unexpected"),
    ],
)
def test_a_poison_record_leaves_nothing_but_a_dead_letter(text: str, reason: str) -> None:
    """Nothing of its outcome is kept, neighbours are unharmed, and the offset passes it."""
    batch = closed(processor(), "a", text, "a")
    (dead,) = outputs(batch, "dead-letters")
    assert headers_of(dead)["dl_reason"] == reason
    assert [output.value for output in outputs(batch, "out")] == [b'{"at":"1"}', b'{"at":"2"}']
    assert (batch.next_offsets, batch.dead_letters) == ({"in": 3}, 1)


def test_provenance_is_complete() -> None:
    """Key, value, time and headers are the original's; others say where and why, or make it a CloudEvent."""
    one = processor(mask=lambda text: text.replace("5551234567", "***"))
    poison = record("bug", 7)
    take(one, poison)
    batch = one.close()
    assert batch is not None
    (dead,) = batch.outputs
    told = headers_of(dead)
    assert (dead.key, dead.value, dead.timestamp) == (poison.key, poison.value, poison.timestamp)
    assert {name: told.pop(name) for name in list(told) if name.startswith("dl_")} == {
        "dl_stage": "toy",
        "dl_topic": "in",
        "dl_partition": "0",
        "dl_offset": "7",
        "dl_reason": "unexpected",
        "dl_error": "KeyError: 'phone +1***'",
        "dl_attempts": "1",
        "dl_added": "ce_specversion,ce_source,ce_time",
    }
    added = {"ce_specversion": "1.0", "ce_source": "/toy", "ce_time": from_ms(poison.timestamp)}
    assert told == added | {"ce_type": "clock.tick.v1", "ce_id": "id-7", "traceparent": "00-a-b-01"}
    assert batch.failures == 1


def test_a_reject_adds_a_dead_letter_to_the_outcome() -> None:
    """A stage may publish a record and dead-letter it too; that is no failure."""
    batch = closed(processor(), "reject")
    assert [output.topic for output in batch.outputs] == ["out", "dead-letters"]
    assert (batch.dead_letters, batch.failures) == (1, 0)


def redriven(text: str) -> Record:
    """A dead letter of ``in`` 0/7 on its way back."""
    told = {"dl_topic": "in", "dl_partition": "0", "dl_offset": "7", "dl_attempts": "2", "dl_stage": "toy"}
    headers = tuple((name, value.encode()) for name, value in told.items())
    return record(text, 0)._replace(topic="toy.redrive", headers=(*record(text).headers, *headers))


def test_a_redriven_record_is_what_it_was() -> None:
    """It is processed as a record of the topic it came from."""
    one = processor()
    take(one, redriven("a"))
    batch = one.close()
    assert batch is not None
    assert [output.topic for output in batch.outputs] == ["out", "table"]
    assert batch.next_offsets == {"toy.redrive": 1}


@pytest.mark.parametrize("text", ["refuse", "reject"])
def test_a_redriven_record_that_fails_again_keeps_its_origin(text: str) -> None:
    """The new dead letter tells of the first place and of one more attempt, so it can be redriven again."""
    one = processor()
    take(one, redriven(text))
    batch = one.close()
    assert batch is not None
    told = headers_of(batch.outputs[-1])
    assert (told["dl_topic"], told["dl_offset"], told["dl_attempts"]) == ("in", "7", "3")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((), "no-provenance"),
        (
            (("dl_topic", b"out"), ("dl_partition", b"0"), ("dl_offset", b"1"), ("dl_attempts", b"1")),
            "no-input",
        ),
    ],
)
def test_a_redriven_record_from_nowhere_is_refused(
    headers: tuple[tuple[str, bytes], ...], reason: str
) -> None:
    """Without provenance, or from a topic that the stage does not read, it is a dead letter again."""
    one = processor()
    take(one, record("a")._replace(topic="toy.redrive", headers=headers))
    batch = one.close()
    assert batch is not None
    assert [headers_of(output)["dl_reason"] for output in batch.outputs] == [reason]


def test_a_fan_out_goes_on_call_by_call() -> None:
    """At most 500 outputs a call, the cursor kept in the store until the end."""
    one = processor()
    batch: Batch | None = closed(one, "fan out")
    sizes = [0]
    while one.resumable:
        one.resume()
        batch = one.close()
        assert batch is not None
        sizes.append(len(batch.outputs))
    assert batch is not None
    assert (sizes, sum(sizes)) == ([0, 500, 500, 200], FAN_OUT)
    assert batch.changes.by_store == {"cursors": [(b"0000000000000001", None)]}


def test_a_fan_out_that_fails_is_dead_lettered() -> None:
    """A cursor whose call raises ends there: told, counted as a failure, and not tried for ever."""
    one = processor()
    take(one, record("fan out", key="bug"))
    one.resume()
    one.resume()
    batch = one.close()
    assert batch is not None
    assert len(outputs(batch, "out")) == 500
    assert headers_of(outputs(batch, "dead-letters")[0])["dl_reason"] == "unexpected"
    assert (one.resumable, batch.failures) == (False, 1)


def test_a_refused_record_is_passed() -> None:
    """What the broker will not take is dead-lettered without a step."""
    one = processor()
    one.refuse("in", record("a", 4), Reject("refused-by-broker", "no"), 3)
    batch = one.close()
    assert batch is not None
    assert (headers_of(batch.outputs[0])["dl_attempts"], batch.next_offsets) == ("3", {"in": 5})


def test_a_dead_letter_that_no_broker_takes_leaves_its_value_behind() -> None:
    """Where it came from is told, and how large it was; the bytes stay there."""
    one = processor()
    take(one, record("a")._replace(value=b"x" * 1_000_000))
    batch = one.close()
    assert batch is not None
    (dead,) = batch.outputs
    assert (dead.value, headers_of(dead)["dl_cut_bytes"]) == (None, "1000000")


def test_a_store_that_cannot_be_read_blames_no_record() -> None:
    """A damaged disk is the task's trouble: it is raised, and nothing is dead-lettered."""

    class Damaged(Memory):
        def get(self, key: bytes) -> bytes | None:
            raise BrokerError(f"{key!r} is damaged")

    with pytest.raises(BrokerError, match="damaged"):
        take(processor(Damaged()), record("a"))


def test_what_an_effect_does_is_all_or_nothing() -> None:
    """An outcome whose output is too large is refused, and its writes with it."""
    one = processor()
    cause: Event[None] = Event(topic="in", key="k", value=None)
    with pytest.raises(RecordError):
        one.apply(Outcome((Put(COUNTS, "k", 1),), (Emit("out", "k", b"x" * 1_000_000),)), cause)
    assert one.close() is None


def stopping() -> Processor:
    """The toy stage, to be stopped by its first unexpected exception."""
    return Processor(STAGE, 0, codec(), Memory(), lambda text: text.replace("5551234567", "***"), stops=True)


def test_a_stage_that_stops_at_errors_passes_no_record() -> None:
    """The error says which record, personal data masked; the batch ends before it, its neighbour kept."""
    one = stopping()
    take(one, record("a", 6))
    with pytest.raises(StageFailed, match=r"toy stopped at in\[0\] offset 7.*KeyError: 'phone \+1\*\*\*'"):
        take(one, record("bug", 7))
    batch = one.close()
    assert batch is not None
    assert (batch.next_offsets, batch.records, batch.dead_letters, batch.failures) == ({"in": 7}, 1, 0, 0)
    assert [output.value for output in outputs(batch, "out")] == [b'{"at":"1"}']


def test_a_stage_that_stops_at_errors_stops_in_a_fan_out() -> None:
    """The cursor whose call failed stays, to be gone on with when the stage is mended."""
    one = stopping()
    take(one, record("fan out", key="bug"))
    one.resume()
    with pytest.raises(StageFailed, match="toy stopped at the fan-out bug at 500"):
        one.resume()
    assert one.resumable


@pytest.mark.parametrize("text", ["refuse", "large", "reject"])
def test_what_a_stage_refuses_never_stops_it(text: str) -> None:
    """Only unexpected exceptions stop: a refusal is a decision of the stage."""
    one = stopping()
    take(one, record(text))
    batch = one.close()
    assert batch is not None
    assert batch.dead_letters == 1
