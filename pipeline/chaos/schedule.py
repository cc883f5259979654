"""
Which fault strikes what, when and for how long: a pure function of the seed.

Faults are dealt from a deck that holds every kind, shuffled anew each time it is used up: a run of a deck's
length has seen them all. Only one broker is away at a time, for with two of three nothing can be written.
"""

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, final

import msgspec

__all__ = ["BROKERS", "LONGEST_S", "PROCESSES", "Fault", "Kind", "schedule"]

#: The processes of the pipeline, and the brokers, by name.
PROCESSES: Final = ("ingest", "worker-1", "worker-2")
BROKERS: Final = ("broker-1", "broker-2", "broker-3")
APIS: Final = "apis"
WEBHOOKS: Final = "webhooks"


class Kind(StrEnum):
    """Each way to be struck."""

    SIGTERM = "sigterm"  #: an orderly stop
    SIGINT = "sigint"  #: Ctrl-C
    SIGKILL = "sigkill"  #: several, a moment apart: also processes that are just starting
    FROZEN = "frozen"  #: SIGSTOP, and SIGCONT before anybody misses the process
    ZOMBIE = "zombie"  #: SIGSTOP for longer than the session: it wakes up when others do its work
    DISK_LOST = "disk_lost"  #: killed, and its local stores deleted
    BROKER_KILLED = "broker_killed"
    BROKER_FROZEN = "broker_frozen"  #: SIGSTOP for longer than requests wait, and than the controller does
    CUT = "cut"  #: connections to a broker are reset, and refused for a while
    STALLED = "stalled"  #: connections to a broker stay open, and nothing passes
    DELAYED = "delayed"  #: everything to and from a broker comes late
    API_THROTTLED = "api_throttled"  #: 429
    API_ERRORS = "api_errors"  #: 503
    API_TIMEOUTS = "api_timeouts"  #: answers come after nobody waits any more
    API_TRUNCATED = "api_truncated"  #: half of the body
    API_TOKENS = "api_tokens"  #: access tokens expire
    WEBHOOKS_DOUBLED = "webhooks_doubled"
    WEBHOOKS_REORDERED = "webhooks_reordered"


#: kind -> what it can strike, and how long at least and at most, in seconds.
_SHAPES: Final[dict[Kind, tuple[tuple[str, ...], float, float]]] = {
    Kind.SIGTERM: (PROCESSES, 0, 0),
    Kind.SIGINT: (PROCESSES, 0, 0),
    Kind.SIGKILL: (PROCESSES, 0, 0),
    Kind.FROZEN: (PROCESSES, 0.5, 4),
    Kind.ZOMBIE: (PROCESSES, 9, 18),
    Kind.DISK_LOST: (PROCESSES, 0, 0),
    Kind.BROKER_KILLED: (BROKERS, 1, 8),
    Kind.BROKER_FROZEN: (BROKERS, 10, 18),
    Kind.CUT: (BROKERS, 0, 4),
    Kind.STALLED: (BROKERS, 2, 14),
    Kind.DELAYED: (BROKERS, 4, 10),
    Kind.API_THROTTLED: ((APIS,), 4, 10),
    Kind.API_ERRORS: ((APIS,), 4, 10),
    Kind.API_TIMEOUTS: ((APIS,), 4, 10),
    Kind.API_TRUNCATED: ((APIS,), 4, 10),
    Kind.API_TOKENS: ((APIS,), 4, 10),
    Kind.WEBHOOKS_DOUBLED: ((WEBHOOKS,), 4, 10),
    Kind.WEBHOOKS_REORDERED: ((WEBHOOKS,), 4, 10),
}

#: Longest that a fault lasts, in seconds.
LONGEST_S: Final = max(most for _, _, most in _SHAPES.values())

#: Kinds that take a broker away.
_AWAY: Final = frozenset({Kind.BROKER_KILLED, Kind.BROKER_FROZEN})

#: Seconds for a broker that is back to catch up, before another one goes.
_CATCH_UP_S: Final = 8.0

#: Pause from one fault to the next, in seconds: so several are in force at a time.
_PAUSE_S: Final = (1.0, 4.0)

#: A burst of kills, and the pause from one to the next, in seconds.
_BURST: Final = (2, 5)
_BURST_PAUSE_S: Final = (0.1, 1.0)


@final
class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: *at_s* seconds after the traffic began, in force for *for_s* seconds; 0: at once over."""

    at_s: float
    kind: Kind
    target: str
    for_s: float = 0.0


def schedule(seed: int, seconds: float) -> tuple[Fault, ...]:
    """All faults of a run, in the order of their beginning; none begins after *seconds*."""
    rng = random.Random(f"chaos {seed}")  # noqa: S311 - repeatable on purpose
    found: list[Fault] = []
    deck, now_s, broker_free_s = _dealt(rng), 0.0, 0.0
    while (now_s := now_s + rng.uniform(*_PAUSE_S)) < seconds:
        kind = next(deck)
        at_s = max(now_s, broker_free_s) if kind in _AWAY else now_s
        struck = [_fault(rng, kind, at_s)] if kind is not Kind.SIGKILL else _burst(rng, at_s)
        found += [fault for fault in struck if fault.at_s < seconds]
        if kind in _AWAY:
            broker_free_s = at_s + struck[0].for_s + _CATCH_UP_S
    return tuple(sorted(found, key=lambda fault: fault.at_s))


def _dealt(rng: random.Random) -> Iterator[Kind]:
    """Kinds without end, each as often as any other."""
    while True:
        yield from rng.sample(list(Kind), len(Kind))


def _fault(rng: random.Random, kind: Kind, at_s: float) -> Fault:
    targets, least_s, most_s = _SHAPES[kind]
    target, for_s = rng.choice(targets), rng.uniform(least_s, most_s)
    return Fault(at_s=round(at_s, 3), kind=kind, target=target, for_s=round(for_s, 3))


def _burst(rng: random.Random, at_s: float) -> list[Fault]:
    """Kills of any processes, a moment apart."""
    found = []
    for _ in range(rng.randint(*_BURST)):
        found.append(_fault(rng, Kind.SIGKILL, at_s))
        at_s += rng.uniform(*_BURST_PAUSE_S)
    return found
