"""The verdict of a run of chaos: what counts as lost, as doubled, and as enough."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.chaos.judgement import DOUBLED, ENOUGH, LOST, judged
from pipeline.chaos.repeats import repeats
from pipeline.codec import Record
from pipeline.sandbox.oracle import Report

ORACLE = (Path(__file__).parents[2] / "pipeline" / "sandbox").glob("oracle_*.py")


def report(compared: int = ENOUGH, **failed: int) -> Report:
    """What the oracle might say; underscores in the names of checks are spaces."""
    counts = {name.replace("_", " "): count for name, count in failed.items()}
    fields: dict[str, Any] = {name: {} for name in ("checks", "nonzero", "dead_letters")}
    fields |= dict.fromkeys(("windows", "closed_windows", "late", "unobservable_opts"), 1)
    total = sum(counts.values())
    return Report(compared=compared, mismatches=total, examples=[], failed_checks=counts, **fields)


def record(topic: str, **headers: str) -> Record:
    """A record with *headers*."""
    return Record(topic, 0, 0, 0, b"", b"", tuple((name, text.encode()) for name, text in headers.items()))


def test_nothing_wrong_passes() -> None:
    """No mismatch, nothing twice, and enough to tell."""
    found = judged(report(), {})
    assert (found["lost"], found["doubled"], found["mismatches"], found["passed"]) == (0, 0, 0, True)


def test_what_is_missing_is_lost() -> None:
    """A fact that is not told fails the run."""
    found = judged(report(message_fact_missing=3), {})
    assert (found["lost"], found["doubled"], found["mismatches"], found["passed"]) == (3, 0, 3, False)


def test_what_is_told_twice_is_doubled() -> None:
    """A fact that is told again fails the run."""
    found = judged(report(activity_twice=2), {})
    assert (found["lost"], found["doubled"], found["mismatches"], found["passed"]) == (0, 2, 2, False)


def test_a_wrong_number_fails_whatever_its_cause() -> None:
    """Neither lost nor doubled, but not what the ledger says."""
    found = judged(report(measure_sent=1), {})
    assert (found["lost"], found["doubled"], found["mismatches"], found["passed"]) == (0, 0, 1, False)


def test_a_record_that_stands_twice_fails_though_no_number_shows_it() -> None:
    """Exactly once is about records, not only about what they come to."""
    found = judged(report(), {"sources.received": 1})
    assert (found["doubled"], found["mismatches"], found["passed"]) == (1, 1, False)
    assert found["failed_checks"] == {"sources.received twice": 1}


def test_a_run_that_saw_little_proves_nothing() -> None:
    """Agreement on hardly anything is no success."""
    assert not judged(report(compared=ENOUGH - 1), {})["passed"]


@pytest.mark.parametrize("topic", ["sources.received", "sakari.events", "activity.enriched"])
def test_an_event_stands_once(topic: str) -> None:
    """The second record of one id is a repetition, of another id or on another topic it is none."""
    one, other = record(topic, ce_id="a"), record(topic, ce_id="b")
    assert repeats([one, other, record("users.events", ce_id="a")]) == {}
    assert repeats([one, other, one, one]) == {topic: 2}


def test_a_table_may_say_the_same_again() -> None:
    """A contact that changes and changes back has the same record twice."""
    same = record("contacts.enriched", ce_id="a")
    assert repeats([same, same]) == {}


def test_a_dead_letter_of_one_record_stands_once() -> None:
    """The same record may be refused by two stages, not twice by one."""
    place = {"dl_topic": "sakari.events", "dl_partition": "0", "dl_offset": "7", "dl_reason": "late"}
    first, second = (record("dead-letters", dl_stage=stage, **place) for stage in ("enrich", "engagement"))
    assert repeats([first, second]) == {}
    assert repeats([first, second, first]) == {"dead-letters": 1}


def test_the_oracle_has_the_checks_that_are_counted() -> None:
    """A check that is renamed there is not silently left out here."""
    told = "".join(path.read_text() for path in ORACLE)
    assert [check for check in LOST | DOUBLED if f'"{check}"' not in told] == []
