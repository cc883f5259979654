"""A stage that gathers commits seldom, forgets nothing, and does not hold up a stop."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import Event, Outcome, Stores
from tests.broker.runtime_world import World, count_and_pass, running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = 12


async def test_a_stop_ends_the_gathering(kafka: str, tmp_path: Path) -> None:
    """What was gathered waits for its time, and is committed at once where the task is to stop."""
    world = World(kafka, tmp_path)
    count, seen = count_and_pass(world.output), 0

    def watched(read: Stores, event: Event[Any]) -> Outcome:
        nonlocal seen
        seen += 1
        return count(read, event)

    stage = world.stage(watched, gather_s=3600.0)
    await world.prepare(stage)
    async with running(world, stage) as one:
        await one.ready()
        await world.send(("k", "first"))
        assert await world.told(at_least=1) == ["first#1"]
        await world.send(("k", "second"), ("k", "third"))
        await until(lambda: seen == 3, "all taken")
        assert await world.told() == ["first#1"]
    assert await world.told() == ["first#1", "second#2", "third#3"]


async def test_the_end_of_gathering_is_never_missed(kafka: str, tmp_path: Path) -> None:
    """Each record comes out without a later one that pushes it."""
    world = World(kafka, tmp_path)
    stage = world.stage(gather_s=0.05)
    await world.prepare(stage)
    async with running(world, stage) as one:
        await one.ready()
        for number in range(ROUNDS):
            await world.send(("k", f"r{number}"), ("k", f"r{number}"))
            await world.told(at_least=2 * (number + 1))
