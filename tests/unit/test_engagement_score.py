"""The exact sum behind the engagement score."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.engagement import score

WEIGHTS = st.sampled_from([score.REPLY, score.INBOUND, score.DELIVERED])
INSTANTS = st.integers(1_500_000_000_000, 2_500_000_000_000)
ENTRIES = st.lists(st.tuples(WEIGHTS, INSTANTS), max_size=20)


@given(WEIGHTS, INSTANTS)
def test_a_weight_counts_in_full_when_it_is_given(weight: float, at: int) -> None:
    """At age 0 S is the weight."""
    assert score.sum_at(score.contribution(weight, at), at) == pytest.approx(weight, abs=1e-11)


@given(WEIGHTS, INSTANTS, st.integers(0, 10))
def test_a_weight_halves_every_fourteen_days(weight: float, at: int, halvings: int) -> None:
    """At age n · 14 d S is weight / 2^n."""
    later = at + halvings * 14 * 86_400_000
    assert score.sum_at(score.contribution(weight, at), later) == pytest.approx(weight / 2**halvings)


@given(ENTRIES)
def test_sums_are_exact(entries: list[tuple[float, int]]) -> None:
    """What was added and taken away, in any order, leaves nothing, unlike with floats."""
    total = sum(score.contribution(weight, at) for weight, at in entries)
    for weight, at in sorted(entries):
        total -= score.contribution(weight, at)
    assert total == 0


@given(ENTRIES)
def test_a_sum_survives_its_store(entries: list[tuple[float, int]]) -> None:
    """The text of a sum gives back the sum; that of nothing is empty."""
    total = sum(score.contribution(weight, at) for weight, at in entries)
    assert score.from_text(score.to_text(total)) == total
    assert score.from_text("") == 0


@given(st.floats(0, 20))
def test_the_score_goes_from_0_towards_100(value: float) -> None:
    """It is 100·(1 - e^(-S))."""
    assert score.score(value) == pytest.approx(100 * (1 - math.exp(-value)))


def test_times_far_apart_do_not_overflow() -> None:
    """A sum with contributions centuries apart can still be read."""
    total = score.contribution(1.0, 0) + score.contribution(1.0, 221_000_000_000_000)
    assert score.sum_at(total, 221_000_000_000_000) == pytest.approx(1.0)
