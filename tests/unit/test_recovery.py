"""How a task waits after a failure, and when it gives up."""

import pytest

from pipeline.errors import BrokerError, StageFailed
from pipeline.runtime.recovery import Recovery, cause_of
from pipeline.runtime.store import StoreError
from pipeline.runtime.transaction import FencedError, RecordRefusedError


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """What a clock gives."""
        return self.now


def test_failures_of_a_minute_are_waited_out_longer_and_longer() -> None:
    """The pause doubles up to its bound, commits in between notwithstanding, and is forgotten in a minute."""
    clock = Clock()
    recovery = Recovery(3.0, clock)
    waits = []
    for _ in range(9):
        recovery.committed()
        waits.append(recovery.wait_s(BrokerError("away")))
    clock.now = 61.0
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == 10.0
    assert recovery.wait_s(BrokerError("away")) == 0.1


def test_a_fenced_task_comes_back_three_times_a_minute() -> None:
    """It first waits for the news that it owns nothing any more; the fourth time for the minute to end."""
    clock = Clock()
    recovery = Recovery(3.0, clock)
    assert [recovery.wait_s(FencedError("fenced")) for _ in range(2)] == [3.0, 3.0]
    clock.now = 10.0
    assert recovery.wait_s(FencedError("fenced")) == 50.0


def test_kafka_may_be_away_for_as_long_as_it_likes() -> None:
    """No number of broker errors makes a task give up: it works again when Kafka does."""
    recovery = Recovery(3.0, Clock())
    assert max(recovery.wait_s(BrokerError("away")) for _ in range(1000)) == 10.0


def test_unexpected_exceptions_in_a_row_are_a_bug() -> None:
    """The thirty-first in a row stops the stage; a commit in between begins the count anew."""
    recovery = Recovery(3.0, Clock())
    for _ in range(30):
        recovery.wait_s(KeyError("bug"))
    recovery.committed()
    for _ in range(30):
        recovery.wait_s(KeyError("bug"))
    with pytest.raises(StageFailed, match="KeyError"):
        recovery.wait_s(KeyError("bug"))


def test_halving_hardly_waits() -> None:
    """A refusal is an answer: the next half is tried at once."""
    recovery = Recovery(3.0, Clock())
    assert sum(recovery.wait_s(RecordRefusedError("too large")) for _ in range(20)) < 3.0


@pytest.mark.parametrize("telling", [StageFailed("bug"), StoreError("disk"), RecordRefusedError("large")])
def test_the_most_telling_cause_is_taken(telling: Exception) -> None:
    """Of several failures at once, the one that decides what is done."""
    group = ExceptionGroup("", [BrokerError("b"), ExceptionGroup("", [KeyError("k"), telling])])
    assert cause_of(group) is telling
