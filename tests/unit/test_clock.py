"""The clock: a tick per interval and partition, whatever the wall clock does."""

import asyncio

import msgspec

from pipeline.events import Tick
from pipeline.sources import clock
from tests.unit.effect_context import START_MS, MemoryContext, Sleeper, values


async def _ticked(context: MemoryContext, interval_s: float, count: int) -> list[float]:
    """Let *count* ticks come; what was slept between them, in seconds."""
    sleeper = Sleeper(context, lambda: len(context.outputs) >= count)
    effect = clock.unit(interval_s, sleeper).effect
    assert effect is not None
    try:
        await effect(context)
    except asyncio.CancelledError:
        return sleeper.slept
    raise AssertionError("the clock stopped by itself")


def _times(context: MemoryContext) -> list[str]:
    return [msgspec.json.decode(value or b"", type=Tick).at for value in values(context.outputs)]


def _context(partition: int = 0) -> MemoryContext:
    return MemoryContext(clock.unit(1.0).stage, partition=partition, partitions=4)


async def test_ticks_come_on_full_multiples_of_the_interval() -> None:
    """Every process ticks the same instants, whenever it started."""
    context = _context()
    context.now_ms = START_MS + 1_234
    slept = await _ticked(context, 1.0, 3)
    assert _times(context) == [f"2030-01-01T00:00:0{second}.000Z" for second in (1, 2, 3)]
    assert slept == [0.766, 1.0]


async def test_a_tick_goes_to_the_tasks_own_partition() -> None:
    """Each owner ticks its partition and no other."""
    context = _context(partition=3)
    await _ticked(context, 60.0, 1)
    assert [output.partition for output in context.outputs] == [3]


async def test_ticks_missed_in_a_pause_are_left_out() -> None:
    """After a pause the clock tells what time it is, not what time it was."""
    context = _context()
    await _ticked(context, 1.0, 1)
    context.now_ms += 3_600_000
    await _ticked(context, 1.0, 2)
    assert _times(context)[-1] == "2030-01-01T01:00:00.000Z"


async def test_a_clock_set_back_during_a_commit_is_not_silent_for_longer_than_an_interval() -> None:
    """Stages take the largest tick: smaller ones do no harm, silence would."""

    class SetBack(MemoryContext):
        def now(self) -> int:
            told = self.now_ms
            self.now_ms = START_MS - 3_600_000
            return told

    context = SetBack(clock.unit(1.0).stage)
    assert await _ticked(context, 1.0, 2) == [1.0]


async def test_the_clock_reads_nothing() -> None:
    """Its input only says who owns which partition."""
    unit = clock.unit(1.0)
    assert not unit.reads
    assert unit.stage.stores == ()
