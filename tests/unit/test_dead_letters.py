"""Dead letters on their way back: what they remember, and that they are what they were."""

import pytest

from pipeline.codec import Record, text_headers
from pipeline.headers import decoded
from pipeline.runtime.dead_letters import (
    MAX_ATTEMPTS_KEPT,
    MAX_KEPT_ERROR_TEXT,
    Attempt,
    Redrive,
    history,
    original,
    redriven,
)
from tests.unit.runtime_toys import headers_of, processor, record, take

REDRIVE = Redrive(id="mended", by="ada", at_ms=1_900_000_000_000)


def refused(redriven_record: Record | None = None, text: str = "refuse") -> Record:
    """The dead letter that the toy stage makes of a record it refuses, or of one that was put back."""
    one = processor()
    take(one, redriven_record or record(text, 7))
    batch = one.close()
    assert batch is not None
    (output,) = (each for each in batch.outputs if each.topic == "dead-letters")
    return Record("dead-letters", 0, 3, output.timestamp, output.key, output.value, tuple(output.headers))


def put_back(letter: Record, id_: str = "0-3", edited: bytes | None = None) -> Record:
    """*letter* as it stands on ``toy.redrive``."""
    timestamp, key, value, headers = redriven(letter, id_, REDRIVE, edited)
    return Record("toy.redrive", 0, 0, timestamp, key, value, tuple(decoded(headers)))


def test_a_record_that_is_put_back_is_what_it_was() -> None:
    """Key, value, timestamp, place and headers are the first ones; it is the second attempt."""
    assert original(put_back(refused()), {"in"}) == (record("refuse", 7), 2)


def test_a_record_on_its_way_back_is_new_to_kafka() -> None:
    """Its timestamp is the redrive's: retention must not remove an old one before it is read."""
    back = put_back(refused())
    assert (back.timestamp, text_headers(back.headers)["dl_timestamp"]) == (REDRIVE.at_ms, "1007")


def test_one_that_fails_again_remembers_each_attempt() -> None:
    """The dead letter of the third attempt tells of both before it, the first failure first."""
    again = refused(put_back(refused()))
    third = refused(put_back(again, "1-9"))
    assert [(each.letter, each.attempt, each.reason) for each in history(third.headers)] == [
        ("0-3", 1, "refused"),
        ("1-9", 2, "refused"),
    ]
    assert text_headers(third.headers)["dl_attempts"] == "3"
    assert (third.timestamp, third.value) == (1_007, record("refuse").value)


def test_who_put_it_back_and_when_is_remembered() -> None:
    """An attempt has its redrive, its operator and its time."""
    (attempt,) = history(refused(put_back(refused())).headers)
    assert attempt == Attempt(
        letter="0-3",
        attempt=1,
        reason="refused",
        error="not this one",
        redrive="mended",
        by="ada",
        at=attempt.at,
    )
    assert attempt.at == "2030-03-17T17:46:40.000Z"


def test_an_edited_value_is_told() -> None:
    """Edited bytes are put back in place of the first ones; dead letters that follow say so."""
    edited = put_back(refused(), edited=b'{"at":"reject"}')
    assert original(edited, {"in"})[0].value == b'{"at":"reject"}'
    again = refused(edited)
    later = refused(put_back(again))
    assert [text_headers(each.headers).get("dl_edited") for each in (again, later)] == ["true", "true"]
    assert [each.edited for each in history(later.headers)] == [True, False]


def test_the_memory_of_attempts_is_bounded() -> None:
    """Of many attempts the first and the latest are kept, of long errors the beginning."""
    letter = refused()
    headers = (*letter.headers[:-2], ("dl_error", b"x" * 500), letter.headers[-1])
    letter = letter._replace(headers=headers)
    for _ in range(MAX_ATTEMPTS_KEPT + 5):
        letter = letter._replace(headers=refused(put_back(letter)).headers)
    kept = history(letter.headers)
    assert [each.attempt for each in kept] == [1, *range(7, 26)]
    assert len(kept[0].error) == MAX_KEPT_ERROR_TEXT


@pytest.mark.parametrize("told", [b"{", b"[1]", b""])
def test_a_foreign_history_is_none(told: bytes) -> None:
    """What cannot be read as a history is nothing; it must not make the letter unreadable."""
    assert history((("dl_history", told),)) == ()


def test_a_stage_sees_nothing_of_the_way_back() -> None:
    """No header of a dead letter reaches what the stage emits."""
    one = processor()
    take(one, put_back(refused(), edited=b'{"at":"a"}'))
    batch = one.close()
    assert batch is not None
    told = [name for output in batch.outputs for name in headers_of(output)]
    assert [name for name in told if name.startswith("dl_")] == []
    assert {output.topic for output in batch.outputs} == {"out", "table"}


def test_what_makes_a_dead_letter_a_cloud_event_goes_with_it() -> None:
    """A record of an internal topic has no such headers, and again none when it is put back."""
    letter = refused(record("bug", 7)._replace(headers=()))
    assert {"ce_id", "ce_source", "ce_specversion", "ce_type", "dl_added"} <= set(
        text_headers(letter.headers)
    )
    assert original(put_back(letter), ("in",))[0].headers == ()
