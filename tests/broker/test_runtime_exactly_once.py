"""Exactly once against a real Kafka: outputs, changelog and offsets stand together or not at all."""

from pathlib import Path

import pytest

from tests.broker.runtime_world import World, running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_records_are_counted_and_passed_on(kafka: str, tmp_path: Path) -> None:
    """Every record of every partition is processed once, with the state of those before it."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number % 4}", f"r{number}") for number in range(40)))
    async with running(world, stage) as one:
        await one.ready()
        told = await world.told(at_least=40)
    assert sorted(told) == sorted(f"r{number}#{number // 4 + 1}" for number in range(40))
