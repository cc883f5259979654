"""
Back-off and circuit breaker as values: what to do after a failure, and when to try again.

Nothing here waits or reads a clock. A `Breaker` is asked whether a call may be made *now*, and told
how calls ended; each answer is a new `Breaker`. Times are seconds of any one clock.

* closed: fewer than ``failures_to_open`` failures in a row; after each the wait doubles, with jitter
* open: that many in a row, or the API asked us to wait; nothing is called before ``ready_at_s``
* half open: the wait is over but no call has succeeded since; one call at a time is made to see
"""

from enum import Enum
from typing import Final, final

import msgspec

from pipeline.errors import Rejected, Throttled, UpstreamError
from pipeline.settings import BreakerSettings

__all__ = ["Breaker", "Circuit", "GiveUp", "TryAgain", "backoff_s", "verdict"]

#: Statuses of a refusal that mends without the request being changed: the credentials are at fault.
CREDENTIALS: Final = frozenset({401, 403})


class Circuit(Enum):
    """Whether calls may be made."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@final
class TryAgain(msgspec.Struct, frozen=True):
    """The same request may succeed later, not before *after_s* where the API said so."""

    after_s: float | None = None


@final
class GiveUp(msgspec.Struct, frozen=True):
    """The API refused the request for good: a dead letter."""

    status: int


def verdict(error: UpstreamError) -> TryAgain | GiveUp:
    """What *error* means for the request that met it."""
    if isinstance(error, Rejected) and error.status not in CREDENTIALS:
        return GiveUp(error.status)
    if isinstance(error, Throttled):
        return TryAgain(error.retry_after_s)
    return TryAgain()


def backoff_s(attempts: int, settings: BreakerSettings, jitter: float) -> float:
    """
    Seconds to wait after the *attempts*-th failure in a row: doubling, bounded, half of it random.

    *jitter* is a random number, 0 ≤ jitter < 1.
    """
    doublings = min(max(attempts, 1) - 1, 32)
    full = min(settings.backoff_initial_s * float(2**doublings), settings.backoff_max_s)
    return full * (0.5 + jitter / 2)


@final
class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one tenant's breaker; begins closed."""

    settings: BreakerSettings
    failures: int = 0  #: in a row
    ready_at_s: float = 0.0

    def circuit(self, now_s: float) -> Circuit:
        """Whether calls may be made at *now_s*."""
        if now_s < self.ready_at_s:
            return Circuit.OPEN
        return Circuit.HALF_OPEN if self.failures >= self.settings.failures_to_open else Circuit.CLOSED

    def wait_s(self, now_s: float) -> float:
        """Seconds until a call may be made; 0 when it may."""
        return max(0.0, self.ready_at_s - now_s)

    def succeeded(self) -> "Breaker":
        """A call succeeded: closed, all forgiven."""
        return Breaker(settings=self.settings)

    def failed(self, now_s: float, *, jitter: float, after_s: float | None = None) -> "Breaker":
        """A call failed; *after_s* is the API's own wish, which we never undercut."""
        failures = self.failures + 1
        wait = backoff_s(failures, self.settings, jitter)
        if failures >= self.settings.failures_to_open:
            wait = max(wait, self.settings.open_s)
        ready_at = max(self.ready_at_s, now_s + max(wait, after_s or 0.0))
        return Breaker(settings=self.settings, failures=failures, ready_at_s=ready_at)
