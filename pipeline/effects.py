"""
The contract of sources and sinks that talk to the outside: a stage beside which an *effect* runs.

An effect is a coroutine that lives as long as its task owns its partition. It reads the task's
committed state and changes it only through ``commit``: one transaction of outputs, state and
nothing else, fenced like every other of the task. So a zombie's next commit fails, whatever it did
outside meanwhile.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, final

import msgspec

from pipeline.stage import NOTHING, Event, Outcome, Stage, Stores

__all__ = ["Change", "Effect", "EffectContext", "Unit", "nothing"]

#: An outcome, or how to make one from the state as it is when it is applied (newest writes included).
Change: TypeAlias = Outcome | Callable[[Stores], Outcome]


class EffectContext(Protocol):
    """What an effect is given."""

    @property
    def partition(self) -> int:
        """The number of this task's partition."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions, so tasks, there are."""
        ...

    @property
    def read(self) -> Stores:
        """The committed state of this task."""
        ...

    async def commit(self, change: Change, *, cause: Event[Any] | None = None) -> None:
        """
        Commit *change* in one transaction, together with whatever else the task commits just then.

        Outputs inherit time, trace and backfill mark of *cause*; without one they begin a trace now.

        Raises:
            BrokerError: it was not committed, and no part of it stands.
            RecordError: an output would be too large; nothing stands.
        """
        ...

    async def changed(self) -> None:
        """Return when state was committed since the last call."""
        ...

    def now(self) -> int:
        """The wall clock, ms since 1970."""
        ...


class Effect(Protocol):
    """A coroutine function that runs while its task owns its partition, and is then cancelled."""

    async def __call__(self, context: EffectContext) -> None:
        """Work until cancelled."""
        ...


@final
class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the runtime runs: a *stage*, and beside it an *effect* for sources and sinks.

    Where *reads* is False the stage's inputs only say who owns which partition; they are not read.
    """

    stage: Stage
    effect: Effect | None = None
    reads: bool = True


def nothing(_: Stores, __: Event[Any]) -> Outcome:
    """The step of a source that reads nothing."""
    return NOTHING
