"""How long a task waits before its next session, by what ended the last one; and when it gives up."""

import time
from collections import deque
from collections.abc import Callable, Iterator

from pipeline.errors import PipelineError, StageFailed
from pipeline.runtime.store import StoreError
from pipeline.runtime.transaction import FencedError, RecordRefusedError

__all__ = ["Recovery", "cause_of"]

#: Pause before the next session, in seconds: first and longest; doubled at each failure of a minute.
_BACKOFF_S = (0.1, 10.0)

_MINUTE_S = 60.0

#: A fenced task is rebuilt so many times a minute: two that both believe to own a partition would
#: otherwise fence each other as fast as they can.
_FENCED_A_MINUTE = 3

#: Unexpected exceptions in a row, nothing committed in between, after which the stage has a bug.
_MAX_UNEXPECTED = 30


class Recovery:
    """The failures of one task; *news_s* is how soon its group would tell it that it owns nothing."""

    def __init__(self, news_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0  #: in a row, nothing committed in between
        self._news_s = news_s
        self._clock = clock
        self._unexpected = 0
        self._times: deque[float] = deque()
        self._fences: deque[float] = deque()

    def committed(self) -> None:
        """Something stands."""
        self.failures = 0
        self._unexpected = 0

    def wait_s(self, error: Exception) -> float:
        """
        Seconds to wait after *error* ended a session.

        Raises:
            StageFailed: that was one unexpected exception too many.
        """
        now = self._clock()
        self.failures += 1
        self._count(error)
        if isinstance(error, FencedError):
            return self._fenced(now)
        _forget(self._times, now)
        self._times.append(now)
        if isinstance(error, RecordRefusedError):  # halving takes many sessions, and waiting helps nothing
            return min(1.0, 0.01 * len(self._times))
        first, longest = _BACKOFF_S
        return min(longest, first * 2.0 ** min(len(self._times) - 1, 10))

    def _count(self, error: Exception) -> None:
        if isinstance(error, PipelineError):
            return
        self._unexpected += 1
        if self._unexpected > _MAX_UNEXPECTED:
            last = f"{type(error).__name__}: {error}"
            raise StageFailed(
                f"{self._unexpected} unexpected exceptions in a row, the last: {last}"
            ) from error

    def _fenced(self, now: float) -> float:
        _forget(self._fences, now)
        self._fences.append(now)
        if len(self._fences) < _FENCED_A_MINUTE:
            return self._news_s
        return max(self._news_s, self._fences[0] + _MINUTE_S - now)


def cause_of(error: Exception) -> Exception:
    """Of all that *error* groups together, what says most about why a session ended."""
    leaves = list(_leaves(error))
    for kind in (StageFailed, StoreError, RecordRefusedError, FencedError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _forget(times: deque[float], now: float) -> None:
    while times and times[0] <= now - _MINUTE_S:
        times.popleft()
