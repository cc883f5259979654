"""A store comes back from its changelog: the tail where the disk was kept, everything where it was lost."""

from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.broker.runtime_world import COUNTS, World, running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def worked(world: World, folder: Path, first: int, end: int) -> list[int]:
    """Let a worker on *folder* count records *first* to *end*; how many each restore applied."""
    stage = world.stage()
    await world.send(*((f"k{number % 10}", f"r{number}") for number in range(first, end)))
    with capture_logs() as logs:
        async with running(world, stage, folder=folder) as one:
            await world.told(at_least=end)
            await until(lambda: all(task.idle for task in one.tasks().values()), "idle")
    return [each["records"] for each in logs if each["event"] == "store.restored"]


async def test_a_lost_disk_is_restored_in_full(kafka: str, tmp_path: Path) -> None:
    """On an empty disk every changelog record is applied, control records at the end notwithstanding."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    assert await worked(world, tmp_path / "lost", 0, 30) == []
    assert sum(await worked(world, tmp_path / "new", 30, 60)) >= 10
    counts = Counter(text.split("#")[0] for text in await world.told())
    assert counts == {f"r{number}": 1 for number in range(60)}
    assert {text.split("#")[1] for text in await world.told()} == {"1", "2", "3", "4", "5", "6"}


async def test_a_kept_disk_restores_the_tail_only(kafka: str, tmp_path: Path) -> None:
    """What the disk holds is not read again; what another worker did meanwhile is."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await worked(world, tmp_path / "a", 0, 30)
    assert await worked(world, tmp_path / "a", 30, 40) == []
    await worked(world, tmp_path / "b", 40, 50)
    assert 0 < sum(await worked(world, tmp_path / "a", 50, 60)) <= 10
    told = await world.told()
    assert sorted(told) == sorted(f"r{number}#{number // 10 + 1}" for number in range(60))


def damage(folder: Path) -> None:
    """Spoil every store below *folder*."""
    for file in folder.rglob("CURRENT"):
        file.write_bytes(b"nonsense")


async def test_a_damaged_store_is_discarded_and_rebuilt(kafka: str, tmp_path: Path) -> None:
    """Files that RocksDB refuses cost a full restore, and nothing else."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await worked(world, tmp_path, 0, 30)
    damage(tmp_path)
    assert sum(await worked(world, tmp_path, 30, 40)) >= 10
    assert sorted(await world.told()) == sorted(f"r{number}#{number // 10 + 1}" for number in range(40))


async def test_the_committed_view_shows_what_stands(kafka: str, tmp_path: Path) -> None:
    """An effect reads, and the dev view reads, the values of committed batches."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(5)))
    async with running(world, stage) as one:
        await world.told(at_least=5)
        await until(lambda: all(task.idle for task in one.tasks().values()), "idle")
        assert {task.read.get(COUNTS, "k") for task in one.tasks().values()} == {None, 5}
