"""The fixed log histogram of reply times."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.histogram import BOUNDS, MAX_SECONDS, bucket, merged, quantiles

SECONDS = st.integers(0, MAX_SECONDS)


def test_bounds_follow_the_contract() -> None:
    """b(0) = 0 and b(i+1) = max(b(i) + 1, b(i)·102 // 100), cut off at 72 h; known points stay put."""
    for low, high in pairwise(BOUNDS[:-1]):
        assert high == max(low + 1, low * 102 // 100)
    assert (BOUNDS[0], BOUNDS[99], BOUNDS[100], BOUNDS[-1]) == (0, 99, 100, 259_200)
    assert len(BOUNDS) == 512


@given(SECONDS)
def test_a_bucket_exceeds_what_it_holds_by_at_most_two_percent(seconds: int) -> None:
    """The upper bound of a value's bucket is at least the value and at most 1.02 times it."""
    assert seconds <= BOUNDS[bucket(seconds)] <= seconds * 1.02


@pytest.mark.parametrize(("seconds", "bound"), [(-5, 0), (0, 0), (1, 1), (10**9, MAX_SECONDS)])
def test_what_is_out_of_range_counts_at_the_ends(seconds: int, bound: int) -> None:
    """Nothing is left out."""
    assert BOUNDS[bucket(seconds)] == bound


def histogram(values: list[int]) -> dict[str, int]:
    """The sparse histogram of *values*."""
    counts: dict[str, int] = {}
    for value in values:
        counts = merged(counts, {str(bucket(value)): 1})
    return counts


@given(st.lists(SECONDS, max_size=20), st.lists(SECONDS, max_size=20))
def test_merging_is_addition(one: list[int], other: list[int]) -> None:
    """The histogram of two sets of values together is the merger of theirs, in numerical order."""
    both = merged(histogram(one), histogram(other))
    assert both == histogram(one + other)
    assert list(both) == sorted(both, key=int)


@given(st.lists(SECONDS, max_size=20))
def test_taking_away_leaves_nothing_behind(values: list[int]) -> None:
    """A histogram minus itself is empty, not full of zeros."""
    counts = histogram(values)
    assert merged(counts, {name: -count for name, count in counts.items()}) == {}


@given(st.lists(SECONDS, min_size=1, max_size=50), st.lists(st.integers(1, 100), max_size=3))
def test_a_quantile_is_the_bound_of_the_nearest_rank(values: list[int], percents: list[int]) -> None:
    """Each is the upper bound of the bucket of the value with rank ceil(n·percent/100)."""
    ranked = [sorted(values)[-(-len(values) * percent // 100) - 1] for percent in percents]
    assert quantiles(histogram(values), percents) == [BOUNDS[bucket(value)] for value in ranked]


def test_nothing_has_no_quantile() -> None:
    """An empty histogram's quantile is unknown."""
    assert quantiles({}, (50, 99)) == [None, None]
