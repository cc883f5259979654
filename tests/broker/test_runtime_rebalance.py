"""Partitions move between workers, inboxes stay bounded, and whoever stops hands over in order."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.broker.runtime_world import World, running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_partitions_split_and_are_taken_over(kafka: str, tmp_path: Path) -> None:
    """Two workers share the partitions, the one that stays takes all: nothing lost, nothing doubled."""
    world = World(kafka, tmp_path, batch_records=10)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number % 5}", f"r{number}") for number in range(400)))
    async with running(world, stage, folder=tmp_path / "a") as first:
        await first.until_committed(20)
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            await world.send(*((f"k{number % 5}", f"r{number}") for number in range(400, 800)))
            await second.ready()
        await world.send(*((f"k{number % 5}", f"r{number}") for number in range(800, 1000)))
        told = await world.told(at_least=1000)
        assert set(first.tasks()) == {0, 1}
    assert sorted(told) == sorted(f"r{number}#{number // 5 + 1}" for number in range(1000))


async def test_a_killed_worker_is_replaced(kafka: str, tmp_path: Path) -> None:
    """The partitions of one that is cancelled under load go to the other, with nothing lost or doubled."""
    world = World(kafka, tmp_path, batch_records=10)
    stage = world.stage()
    await world.prepare(stage)
    async with running(world, stage, folder=tmp_path / "a") as first:
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            await world.send(*((f"k{number % 5}", f"r{number}") for number in range(500)))
            await second.until_committed(10)
            await second.kill()
        told = await world.told(at_least=500)
    assert sorted(told) == sorted(f"r{number}#{number // 5 + 1}" for number in range(500))


async def test_a_slow_stage_pauses_its_partitions(kafka: str, tmp_path: Path) -> None:
    """While commits hang, at most one fetch beyond the bound is buffered; then all goes on."""
    world = World(kafka, tmp_path, batch_records=100)
    gate = asyncio.Event()
    stage = world.stage()
    await world.prepare(stage)
    async with running(world, stage) as one:
        await one.ready()
        commits = [hold(task, gate) for task in one.tasks().values()]
        await world.send(*((f"k{number % 5}", f"r{number}" * 20) for number in range(6_000)))
        await until(lambda: bool(one.worker.groups[stage.name]._paused), "a pause")
        await until(lambda: any(len(task.inbox) >= 200 for task in one.tasks().values()), "full inboxes")
        assert all(len(task.inbox) <= 200 + 2_000 for task in one.tasks().values())
        gate.set()
        assert len(await world.records(at_least=6_000)) == 6_000
    assert len(commits) == 2


def hold(task: Any, gate: asyncio.Event) -> Any:
    """Let every commit of *task* wait for *gate*."""
    commit = task._commit

    async def held(*arguments: Any) -> None:
        await gate.wait()
        await commit(*arguments)

    task._commit = held
    return commit


async def test_a_stop_while_joining_is_prompt(kafka: str, tmp_path: Path) -> None:
    """A stop that comes before the first assignment ends the worker well within its deadline."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    async with asyncio.timeout(10), running(world, stage) as one:
        await one.stop()
    assert one.worker.unready == {"process": "stopping"}
