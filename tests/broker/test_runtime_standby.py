"""Another process keeps a warm copy of a partition's state, and takes it over where it stands."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.runtime.standby import Copies
from tests.broker.runtime_world import Running, World, running, until, until_it

pytestmark = pytest.mark.asyncio(loop_scope="session")


def copies(one: Running) -> Copies:
    """What the worker has of the state of its only stage."""
    (group,) = one.worker.groups.values()
    return group._copies


def lag(one: Running, world: World, partition: int) -> float | None:
    """What the worker tells of how far its standby copy of *partition* is behind."""
    labels = {"stage": world.name, "partition": str(partition)}
    return one.cluster.metrics.registry.get_sample_value("pipeline_standby_lag_records", labels)


async def warm(world: World, owner: Running, keeper: Running) -> int:
    """Return the partition that *owner* has, once the copy of *keeper* reaches as far."""
    await until(lambda: len(owner.tasks()) == len(keeper.tasks()) == 1, "a partition each")
    await owner.ready()
    await keeper.ready()
    (partition,) = owner.tasks()

    async def level() -> bool:
        task = owner.tasks()[partition]
        return task.idle and 0 < task.reached <= copies(keeper).reached.get(partition, 0) + 1

    await until_it(level, "a copy that reaches as far as its owner")
    await until(lambda: lag(keeper, world, partition) == 0, "a lag of 0")
    return partition


def restored(logs: list[Any], partition: int) -> int:
    """How many changelog records restores of *partition* applied."""
    events = [each for each in logs if each["event"] == "store.restored" and each["partition"] == partition]
    return sum(each["records"] for each in events)


async def test_a_standby_takes_over_where_it_stands(kafka: str, tmp_path: Path) -> None:
    """After the owner is lost, its heir restores next to nothing, and counts on without a gap."""
    world = World(kafka, tmp_path, batch_records=50, standby=1)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", f"r{number}") for number in range(400)))
    async with running(world, stage, folder=tmp_path / "a") as first:
        async with running(world, stage, folder=tmp_path / "b") as second:
            partition = await warm(world, second, first)
            with capture_logs() as logs:
                await second.kill()
                await world.send(*((f"k{number}", f"r{400 + number}") for number in range(400)))
                told = await world.told(at_least=800)
        assert set(first.tasks()) == {0, 1}
    assert restored(logs, partition) <= 10
    assert sorted(told) == sorted(f"r{number}#{number // 400 + 1}" for number in range(800))


async def test_without_standby_all_is_restored(kafka: str, tmp_path: Path) -> None:
    """The same with the setting off reads the whole changelog: what the setting spares."""
    world = World(kafka, tmp_path, batch_records=50)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", f"r{number}") for number in range(400)))
    async with running(world, stage, folder=tmp_path / "a") as first:
        await first.ready()
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            assert copies(second)._stores == {}
        with capture_logs() as logs:
            async with running(world, stage, folder=tmp_path / "c") as third:
                await until(lambda: len(third.tasks()) == 1, "a partition")
                await third.ready()
                (partition,) = third.tasks()
    assert restored(logs, partition) >= 100


async def test_a_lone_process_keeps_no_copies(kafka: str, tmp_path: Path) -> None:
    """With nobody else in the group there is nothing to follow."""
    world = World(kafka, tmp_path, standby=1)
    stage = world.stage()
    await world.prepare(stage)
    async with running(world, stage) as one:
        await one.ready()
        assert copies(one)._wanted == frozenset()
        assert lag(one, world, 0) is None


async def test_who_loses_a_partition_keeps_its_copy_warm(kafka: str, tmp_path: Path) -> None:
    """The former owner follows on from its own store, and has the partition again when the heir goes."""
    world = World(kafka, tmp_path, batch_records=50, standby=1)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", f"r{number}") for number in range(400)))
    async with running(world, stage, folder=tmp_path / "a") as first:
        await world.told(at_least=400)
        with capture_logs() as logs:
            async with running(world, stage, folder=tmp_path / "b") as second:
                partition = await warm(world, second, first)
                await world.send(*((f"k{number}", f"r{400 + number}") for number in range(400)))
                await world.told(at_least=800)
                await warm(world, second, first)
            await until(lambda: set(first.tasks()) == {0, 1}, "both partitions")
            await first.ready()
    heirs_own = sum(each["event"] == "store.restored" for each in logs if each.get("partition") == partition)
    assert heirs_own >= 1
    assert 100 <= restored(logs, partition) < 300


async def test_a_kept_disk_is_preferred(kafka: str, tmp_path: Path) -> None:
    """A process that comes back is given the partition that its disk holds, not any one."""
    world = World(kafka, tmp_path, batch_records=50)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", f"r{number}") for number in range(200)))
    async with (
        running(world, stage, folder=tmp_path / "a") as first,
        running(world, stage, folder=tmp_path / "b") as second,
    ):
        await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
        await world.told(at_least=200)
        # who stays keeps the smaller number, unless somebody else has a copy of it
        late, early = ("a", "b") if set(first.tasks()) == {0} else ("b", "a")
        await first.stop()
    async with running(world, stage, folder=tmp_path / early) as second:
        await until(lambda: set(second.tasks()) == {0, 1}, "both partitions")
        async with running(world, stage, folder=tmp_path / late) as first:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            assert set(first.tasks()) == {0}


async def test_a_copy_that_cannot_be_true_is_begun_anew(kafka: str, tmp_path: Path) -> None:
    """A copy that reaches beyond its changelog, as of another one of that name, is wiped and filled again."""
    world = World(kafka, tmp_path, batch_records=50, standby=1)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", f"r{number}") for number in range(400)))
    async with running(world, stage, folder=tmp_path / "a") as first:
        await world.told(at_least=400)
        for partition in (0, 1):
            cluster = world.cluster(tmp_path / "b")
            store = cluster.local_store(stage, partition)
            store.open()
            store.apply([(b"counts\0bogus", b"\x07")], dict.fromkeys(cluster.changelogs(stage), 10**6))
            store.close()
        async with running(world, stage, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            (partition,) = first.tasks()
            await until(lambda: lag(second, world, partition) == 0, "a lag of 0")
            assert copies(second).reached[partition] >= first.tasks()[partition].reached
            assert copies(second)._stores[partition].get(b"counts\0bogus") is None
