"""A process that was frozen for longer than its session comes back to find itself replaced."""

import signal
from pathlib import Path

import pytest

from tests.broker.runtime_process import START_S, started
from tests.broker.runtime_world import World, running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Records sent before the freeze, and again after the thaw.
COUNT = 300


def short_sessions(kafka: str, folder: Path) -> World:
    """A world whose processes are given up within two seconds of silence, and follow each other's state."""
    world = World(kafka, folder, batch_records=10, standby=1)
    short = {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 500}
    world.settings = world.settings.model_copy(update=short)
    return world


def numbered(first: int, end: int) -> list[tuple[str, str]]:
    """Records of five keys with the numbers from *first* to *end*."""
    return [(f"k{number % 5}", f"r{number}") for number in range(first, end)]


@pytest.mark.parametrize("before", ["send_offsets_to_transaction", "commit_transaction"])
async def test_a_zombie_adds_nothing(kafka: str, tmp_path: Path, before: str) -> None:
    """Frozen within a transaction for longer than its session, it is refused, also in its heir's standby."""
    world = short_sessions(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    zombies = started(world, tmp_path / "zombie", freeze_at=5, freeze_before=before)
    async with running(world, stage, folder=tmp_path / "heir") as heir, zombies as zombie:
        await until(lambda: len(heir.tasks()) == 1, "a partition each", START_S)
        await world.send(*numbered(0, COUNT))
        await zombie.frozen()
        await until(lambda: set(heir.tasks()) == {0, 1}, "its partition with its heir")
        stood = await world.told(at_least=COUNT)
        zombie.signal(signal.SIGCONT)
        await until(lambda: len(heir.tasks()) == 1, "the former zombie has a partition again")
        assert '"task.rebuilt"' in zombie.log
        assert await world.told() == stood
        await world.send(*numbered(COUNT, 2 * COUNT))
        told = await world.told(at_least=2 * COUNT)
        await zombie.stop()
    assert sorted(told) == sorted(f"r{number}#{number // 5 + 1}" for number in range(2 * COUNT))
