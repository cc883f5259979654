"""The contest's arithmetic: what is expected of a run, and what becomes of its rounds."""

import sys
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.bench.contest import CEILING, OURS, QUIX, STREAMS, expected_sum, medians, ratios, spoken
from tests.bench.fill import RECORD_BYTES, records
from tests.bench.setting_up import PEERS


def rounds(name: str, *rates: int | None) -> list[dict[str, Any]]:
    """The lines of *name*'s rounds."""
    return [{"contestant": name, "records_per_s": rate} for rate in rates]


@pytest.mark.parametrize("count", [1, 9, 10, 11, 25])
def test_the_expected_sum_is_that_of_the_counts(count: int) -> None:
    """What the outputs are held against is what counting the filled keys gives."""
    seen: Counter[bytes] = Counter()
    total = 0
    for key, _ in records(count, keys=10):
        seen[key] += 1
        total += seen[key]
    assert expected_sum(count, 10) == total


def test_a_record_is_what_is_promised() -> None:
    """450 bytes of JSON with the five fields, an id of its own, and the same at every run."""
    made = list(records(500, keys=10))
    values = [orjson.loads(value) for _, value in made]
    assert {len(value) for _, value in made} == {RECORD_BYTES}
    assert {tuple(value) for value in values} == {("eventId", "type", "accountId", "occurredAt", "payload")}
    assert len({value["eventId"] for value in values}) == len(made)
    assert made == list(records(500, keys=10))


def test_the_median_of_the_rounds_counts() -> None:
    """One slow round moves nothing."""
    assert medians(rounds(OURS, 50, 10, 60)) == {OURS: 50}


def test_a_contestant_that_was_wrong_once_has_no_figure() -> None:
    """Nobody is compared on wrong work, ours included."""
    assert medians([*rounds(OURS, 50, None, 60), *rounds(QUIX, 10, 10, 10)]) == {QUIX: 10}


def test_ratios_are_ours_to_the_others() -> None:
    """Of Kafka Streams the better number of threads counts; who has no figure gives no ratio."""
    rates = {OURS: 60, CEILING: 100, f"{STREAMS} (1 thread)": 20, f"{STREAMS} (2 threads)": 30}
    told = ratios(rates)
    assert (told["of_ceiling"], told["of_kafka_streams"], told["of_quix"]) == (0.6, 2.0, None)


@pytest.mark.parametrize(
    ("script", "told"), [("exit('broken')", "exit code 1: broken"), ("while True: pass", "not done after")]
)
async def test_a_peer_that_fails_is_told_and_ended(script: str, told: str) -> None:
    """A peer's failure is an error of its run, with its last words, and leaves no process behind."""
    with pytest.raises(RuntimeError, match=told):
        await spoken([sys.executable, "-c", script], timeout_s=2)


@pytest.mark.parametrize("name", ["quix", "faust", "faststream"])
def test_a_peer_is_pinned(name: str) -> None:
    """Each line of a peer's requirements is one exact version."""
    lines = [line for line in (PEERS / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line] == []
