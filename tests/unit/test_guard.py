"""Poison records pass, a bug stops its stage."""

import pytest

from pipeline.errors import StageFailed
from pipeline.runtime.guard import FailureGuard


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """What a clock gives."""
        return self.now


def guard() -> tuple[FailureGuard, Clock]:
    """A guard and its clock."""
    clock = Clock()
    return FailureGuard("enrich", clock), clock


def test_a_few_failures_are_poison() -> None:
    """Nineteen in a minute never stop a stage, whatever their share."""
    one, _ = guard()
    for _ in range(19):
        one.count(1, 1)
    with pytest.raises(StageFailed):
        one.count(1, 1)


def test_many_failures_among_many_records_are_poison() -> None:
    """Up to 10 % may fail."""
    one, _ = guard()
    for _ in range(100):
        one.count(100, 10)
    with pytest.raises(StageFailed, match="1001 of 10001"):
        one.count(1, 1)


def test_more_than_a_tenth_is_a_bug() -> None:
    """The twentieth failure among less than two hundred records stops the stage, and names it."""
    one, _ = guard()
    one.count(180, 19)
    with pytest.raises(StageFailed, match="enrich: 20 of 190 records failed unexpectedly"):
        one.count(10, 1)


def test_only_the_last_minute_counts() -> None:
    """What failed longer ago is forgotten, and so are the records beside it."""
    one, clock = guard()
    one.count(1000, 15)
    clock.now = 61.0
    one.count(100, 15)
    with pytest.raises(StageFailed, match="20 of 105"):
        one.count(5, 5)
