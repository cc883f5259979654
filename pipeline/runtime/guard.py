"""Tells a poison record from a bug: too many unexpected exceptions in a minute stop the stage."""

import time
from collections import deque
from collections.abc import Callable

from pipeline.errors import StageFailed

__all__ = ["FailureGuard"]

WINDOW_S = 60.0
MIN_FAILURES = 20
MAX_SHARE = 0.10


class FailureGuard:
    """Counts records and failures of one stage over the last minute, on *clock* (seconds)."""

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._clock = clock
        self._batches: deque[tuple[float, int, int]] = deque()
        self._records = 0
        self._failures = 0

    def count(self, records: int, failures: int) -> None:
        """
        Note one batch.

        Raises:
            StageFailed: more than 10 % of a minute's records, and at least 20, failed unexpectedly.
        """
        now = self._clock()
        self._add(now, records, failures)
        while self._batches[0][0] < now - WINDOW_S:
            _, records, failures = self._batches.popleft()
            self._records -= records
            self._failures -= failures
        if self._failures >= MIN_FAILURES and self._failures > MAX_SHARE * self._records:
            raise StageFailed(
                f"{self._stage}: {self._failures} of {self._records} records failed unexpectedly within "
                f"{WINDOW_S:.0f} s; see its dead letters, mend the stage and start again"
            )

    def _add(self, now: float, records: int, failures: int) -> None:
        self._batches.append((now, records, failures))
        self._records += records
        self._failures += failures
