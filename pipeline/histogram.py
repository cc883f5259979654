"""
The fixed log histogram of reply times (DESIGN §4).

Bucket ``i`` holds the seconds ``b(i-1) < s <= b(i)``, where ``b(0) = 0`` and
``b(i+1) = max(b(i) + 1, b(i) * 102 // 100)``, the last bound being 259,200. So up to 100 s each
second has its own bucket, and a bucket's upper bound exceeds what it holds by at most 2 %. The
bounds are part of the contract of ``engagement.metrics``: they never change within a major version.

Counts are sparse, ``{bucket number as text: count}``, in the order of the numbers; merging is addition.
"""

from bisect import bisect_left
from collections.abc import Mapping

__all__ = ["BOUNDS", "MAX_SECONDS", "bucket", "merged", "quantile"]

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


def quantile(counts: Mapping[str, int], percent: int) -> int | None:
    """
    The nearest-rank quantile at *percent* (1 to 100) in seconds: the upper bound of its bucket.

    Returns None for an empty histogram.
    """
    rank = -(-sum(counts.values()) * percent // 100)
    for name in sorted(counts, key=int):
        rank -= counts[name]
        if rank <= 0:
            return BOUNDS[int(name)]
    return None
