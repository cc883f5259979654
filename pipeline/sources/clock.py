"""
The clock: time reaches stages as records.

Reads    nothing
Writes   ``clock.ticks``  one record per partition and interval, by the partition's owner
State    none
Time     the wall clock, in ms since 1970; the only source that reads it for its own sake
Repeats  a tick that comes twice, or late after a pause, says nothing new: stages take the largest
"""

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.effects import EffectContext, Unit, nothing
from pipeline.events import Tick
from pipeline.instants import from_ms
from pipeline.stage import Emit, Outcome, Stage

__all__ = ["unit"]


def unit(interval_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> Unit:
    """The clock, ticking every *interval_s* seconds on the full multiple of it; *sleep* waits."""
    interval_ms = max(1, round(interval_s * 1000))

    async def tick(context: EffectContext) -> None:
        while True:
            at = context.now() // interval_ms * interval_ms
            emit = Emit("clock.ticks", str(context.partition), Tick(from_ms(at)))
            await context.commit(Outcome(emit=(emit,)))
            # Set back meanwhile, the clock would else be silent until it is where it was.
            await sleep(min(max(0, at + interval_ms - context.now()), interval_ms) / 1000)

    stage = Stage(name="clock", inputs=("clock.ticks",), outputs=("clock.ticks",), step=nothing)
    return Unit(stage=stage, effect=tick, reads=False)
