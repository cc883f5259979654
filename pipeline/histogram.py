"""
The fixed log histogram of reply times (DESIGN §4).

Bucket ``i`` holds the seconds ``b(i-1) < s <= b(i)``, where ``b(0) = 0`` and
``b(i+1) = max(b(i) + 1, b(i) * 102 // 100)``, the last bound being 259,200. So up to 100 s each
second has its own bucket, and a bucket's upper bound exceeds what it holds by at most 2 %. The
bounds are part of the contract of ``engagement.metrics``: they never change within a major version.

Counts are sparse, ``{bucket number as text: count}``, in the order of the numbers; merging is addition.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

__all__ = ["BOUNDS", "MAX_SECONDS", "bucket", "merged", "quantiles"]

#: 72 h, the longest reply window; what takes longer counts in the last bucket.
MAX_SECONDS = 259_200


def _bounds() -> tuple[int, ...]:
    bounds = [0]
    while bounds[-1] < MAX_SECONDS:
        bounds.append(min(max(bounds[-1] + 1, bounds[-1] * 102 // 100), MAX_SECONDS))
    return tuple(bounds)


#: Upper bound in seconds of each bucket.
BOUNDS = _bounds()


def bucket(seconds: int) -> int:
    """The number of the bucket that holds *seconds*; below 0 counts as 0, above the last as the last."""
    return bisect_left(BOUNDS, min(max(seconds, 0), MAX_SECONDS))


def merged(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The sum of two sparse histograms; buckets that come to 0 are left out."""
    counts = dict(one)
    for name, count in other.items():
        counts[name] = counts.get(name, 0) + count
    return {name: counts[name] for name in sorted(counts, key=int) if counts[name]}


def quantiles(counts: Mapping[str, int], percents: Sequence[int]) -> list[int | None]:
    """
    The nearest-rank quantiles at *percents* (1 to 100) in seconds: the upper bounds of their buckets.

    None for an empty histogram.
    """
    if not counts:
        return [None for _ in percents]
    entries = sorted((int(number), count) for number, count in counts.items())
    heads = list(accumulate(count for _, count in entries))
    ranks = [-(-heads[-1] * percent // 100) for percent in percents]
    return [BOUNDS[entries[bisect_left(heads, rank)][0]] for rank in ranks]
