"""Back-off and breaker are values: given a time and a failure, what happens next is known."""

import pytest

from pipeline.clients.breaker import Breaker, Circuit, GiveUp, TryAgain, backoff_s, verdict
from pipeline.errors import Rejected, Throttled, Unavailable, UpstreamError
from pipeline.settings import BreakerSettings

SETTINGS = BreakerSettings(backoff_initial_s=1.0, backoff_max_s=8.0, failures_to_open=3, open_s=30.0)


def failing(times: int, *, now: float = 0.0) -> Breaker:
    """A breaker after *times* failures at *now*, with the longest jitter below 1."""
    breaker = Breaker(settings=SETTINGS)
    for _ in range(times):
        breaker = breaker.failed(now, jitter=0.0)
    return breaker


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unavailable("down"), TryAgain()),
        (Throttled("slow down", 12.0), TryAgain(12.0)),
        (Throttled("slow down"), TryAgain()),
        (Rejected(401, "token"), TryAgain()),
        (Rejected(403, "scope"), TryAgain()),
        (Rejected(400, "bad"), GiveUp(400)),
        (Rejected(404, "gone"), GiveUp(404)),
        (Rejected(422, "worse"), GiveUp(422)),
    ],
)
def test_only_a_refusal_of_the_request_itself_is_given_up(
    error: UpstreamError, expected: TryAgain | GiveUp
) -> None:
    """Refused credentials can be mended without changing the request, so it is kept."""
    assert verdict(error) == expected


def test_waits_double_up_to_their_bound() -> None:
    """Each failure in a row doubles the wait, never above the setting."""
    assert [backoff_s(n, SETTINGS, 0.0) for n in (1, 2, 3, 4, 5, 1000)] == [0.5, 1, 2, 4, 4, 4]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_half_of_a_wait_is_random(jitter: float) -> None:
    """Many clients that failed together do not come back together."""
    assert 0.5 <= backoff_s(1, SETTINGS, jitter) < 1.0


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """One failure less leaves only the back-off; the last one adds the long wait."""
    assert failing(2).wait_s(0.0) < SETTINGS.open_s
    assert failing(3).wait_s(0.0) == SETTINGS.open_s


def test_after_the_wait_one_call_may_see() -> None:
    """An opened breaker is half open when its time is over, and not a moment before."""
    assert failing(3).circuit(29.9) is Circuit.OPEN
    assert failing(3).circuit(30.0) is Circuit.HALF_OPEN


def test_a_failure_half_open_opens_it_again() -> None:
    """The call that was let through failed: the long wait begins anew."""
    assert failing(3).failed(30.0, jitter=0.0).wait_s(30.0) == SETTINGS.open_s


def test_a_success_forgives_all() -> None:
    """After one success the next failure counts as the first."""
    again = failing(3).succeeded()
    assert again.circuit(0.0) is Circuit.CLOSED
    assert again.failed(0.0, jitter=0.0).wait_s(0.0) == 0.5


def test_the_wish_of_the_api_is_never_undercut() -> None:
    """``Retry-After`` holds even when our own back-off would be shorter, or a shorter one follows."""
    breaker = Breaker(settings=SETTINGS).failed(0.0, jitter=0.0, after_s=120.0)
    assert breaker.wait_s(0.0) == 120.0
    assert breaker.failed(1.0, jitter=0.0).wait_s(1.0) == 119.0
