"""Partitions move between workers, inboxes stay bounded, and whoever stops hands over in order."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime import group
from tests.broker.runtime_fleet import Fleet, counted
from tests.broker.runtime_world import Running, World, running, until

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


def figure(one: Running, world: World, name: str) -> float:
    """A metric of the worker's only stage."""
    return one.cluster.metrics.registry.get_sample_value(f"pipeline_{name}", {"stage": world.name}) or 0.0


async def test_a_static_member_comes_back_unnoticed(kafka: str, tmp_path: Path) -> None:
    """One that restarts within its session has its partition again; the other sees no rebalance."""
    world = World(kafka, tmp_path, session_timeout_ms=30_000)
    stage = world.stage()
    await world.prepare(stage)
    a, b = (world.cluster(tmp_path / name, group_instance_id=name) for name in ("a", "b"))
    async with running(world, stage, cluster=a) as first:
        async with running(world, stage, cluster=b) as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            await first.ready()
            before, owned = (
                figure(first, world, "rebalances_total"),
                (dict(first.tasks()), set(second.tasks())),
            )
        async with running(world, stage, cluster=b) as second:
            await until(lambda: set(second.tasks()) == owned[1], "its partition again")
            await world.send(*((f"k{number}", f"r{number}") for number in range(100)))
            assert len(await world.told(at_least=100)) == 100
            assert (figure(first, world, "rebalances_total"), first.tasks()) == (before, owned[0])


async def test_a_join_moves_only_what_it_must(kafka: str, tmp_path: Path) -> None:
    """Whoever joins or leaves, the member that stays goes on with the partition that it had."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    async with (
        running(world, stage, folder=tmp_path / "a") as first,
        running(world, stage, folder=tmp_path / "b") as second,
    ):
        await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
        kept = set(second.tasks())
        async with running(world, stage, folder=tmp_path / "c") as third:
            await until(lambda: third.worker.groups[stage.name].assigned, "a member without work")
            await first.stop()
            await until(lambda: len(second.tasks()) == len(third.tasks()) == 1, "a partition each")
            assert set(second.tasks()) == kept


async def test_a_clean_leave_is_not_waited_for(kafka: str, tmp_path: Path) -> None:
    """Who stays takes over at once, not after the session's timeout, and nobody has anything to do again."""
    world = World(kafka, tmp_path, session_timeout_ms=600_000, batch_records=10)
    stage = world.stage()
    await world.prepare(stage)
    async with running(world, stage, folder=tmp_path / "a") as first:
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            await world.send(*((f"k{number}", f"r{number}") for number in range(1_000)))
            await second.until_committed(20)
        await until(lambda: set(first.tasks()) == {0, 1}, "both partitions")
        assert len(await world.told(at_least=1_000)) == 1_000
    assert [figure(one, world, "task_rebuilds_total") for one in (first, second)] == [0, 0]


async def test_what_does_not_finish_is_given_up(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose commit hangs is dropped with its partition: its heir does that work, and only once."""
    monkeypatch.setattr(group, "_DRAIN_S", 0.5)
    world, gate = World(kafka, tmp_path, batch_records=10), asyncio.Event()
    stage = world.stage()
    await world.prepare(stage)
    async with running(world, stage, folder=tmp_path / "a") as first:
        await first.ready()
        held = [hold(task, gate) for task in first.tasks().values()]
        await world.send(*((f"k{number}", f"r{number}") for number in range(100)))
        await until(lambda: all(task._committing for task in first.tasks().values()), "commits that hang")
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            told = await world.told(at_least=100)
            gate.set()
            assert await world.told() == told
    assert (len(held), sorted(told)) == (2, sorted(f"r{number}#1" for number in range(100)))


@pytest.mark.parametrize("seed", [1])
async def test_two_versions_come_and_go_under_load(kafka: str, tmp_path: Path, seed: int) -> None:
    """Joins, leaves, crashes and freezes of processes with different inputs lose and double nothing."""
    world = World(kafka, tmp_path, batch_records=5, standby=1)
    short = {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 500}
    world.settings = world.settings.model_copy(update=short)
    await world.prepare(world.stage(inputs=(world.input, world.side)))
    async with Fleet(world, seed) as fleet:
        await fleet.join(new=False)
        await fleet.join(new=True)
        for _ in range(6):
            for topic in (world.input, world.side):
                await world.send(*((f"k{number % 10}", topic) for number in range(200)), topic=topic)
            await fleet.progress(20)
            await fleet.strike()
        await fleet.end_new()
        counts = counted(await world.records(at_least=2_400))
    assert counts == {f"k{number}": list(range(1, 241)) for number in range(10)}
