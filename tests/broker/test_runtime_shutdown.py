"""A signal at any moment ends a process within its deadline; what was not committed is done later."""

import signal
from pathlib import Path

import pytest

from tests.broker.runtime_world import World, running
from tests.broker.stopping_process import GRACE_S, started
from tests.broker.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 600

#: Deadline of an orderly stop, in seconds.
STOP_S = 4.0

#: What the end of a process itself may take on a busy machine, in seconds.
SLACK_S = 2.0


async def loaded(kafka: str, folder: Path, first: int = 0) -> World:
    """A world of which `COUNT` records wait, in many small batches."""
    world = World(kafka, folder / "disk", batch_records=10, stop_timeout_s=STOP_S, request_timeout_ms=2_000)
    await world.prepare(world.stage())
    await send(world, first)
    return world


async def send(world: World, first: int = 0) -> None:
    """Write `COUNT` records more, the number *first* first."""
    await world.send(*((f"k{number % 3}", f"r{number}") for number in range(first, first + COUNT)))


async def finished(world: World, count: int = COUNT) -> list[str]:
    """All outputs in order of their texts, when a sound worker has done the rest."""
    async with running(world, world.stage(), folder=world.folder / "heir"):
        return sorted(await world.told(at_least=count))


def once_each(count: int = COUNT) -> list[str]:
    """Every record with its place among those of its key: none is missing, none is there twice."""
    return sorted(f"r{number}#{number // 3 + 1}" for number in range(count))


@pytest.mark.parametrize("state", ["begun", "waiting for partitions", "starting", "restoring", "ready"])
async def test_a_signal_at_any_moment_of_the_start(kafka: str, tmp_path: Path, state: str) -> None:
    """Whatever a process is at, it ends in order, and a later one does what is left."""
    world = await loaded(kafka, tmp_path)
    async with running(world, world.stage()) as one:
        await one.until_committed(50)
    async with started(world, tmp_path / "child") as child:
        await child.at(state)
        code, seconds = await child.stopped(signal.SIGTERM)
    assert (code, seconds < STOP_S) == (0, True)
    assert await finished(world) == once_each()


@pytest.mark.parametrize("leaver", [0, 1])
async def test_a_signal_in_a_rebalance(kafka: str, tmp_path: Path, leaver: int) -> None:
    """While a second process joins, either may have to go: it ends in order, the other has it all."""
    world = await loaded(kafka, tmp_path)
    async with started(world, tmp_path / "a") as first:
        await first.at("ready")
        first.states.clear()
        async with started(world, tmp_path / "b") as second:
            await first.at("waiting for partitions")
            code, seconds = await (first, second)[leaver].stopped(signal.SIGTERM)
            assert (code, seconds < STOP_S) == (0, True)
            await send(world, COUNT)
            told = sorted(await world.told(at_least=2 * COUNT))
    assert told == once_each(2 * COUNT)


async def test_a_signal_while_kafka_hangs(wire: Wire, tmp_path: Path) -> None:
    """What cannot be committed is given up at the deadline, which the exit code tells; nothing is lost."""
    world = await loaded(wire.kafka, tmp_path)
    async with started(world, tmp_path / "child") as child:
        await child.at("ready")
        wire.network.stalled = True
        code, seconds = await child.stopped(signal.SIGTERM)
    assert code in {0, 1}
    assert seconds < STOP_S + GRACE_S + SLACK_S
    wire.network.heal()
    assert await finished(world) == once_each()


async def test_a_signal_while_a_restore_hangs(wire: Wire, tmp_path: Path) -> None:
    """A task that has not begun to work has nothing to finish: it is given up at once."""
    world = await loaded(wire.kafka, tmp_path)
    async with running(world, world.stage()) as one:
        await one.until_committed(50)
    async with started(world, tmp_path / "child") as child:
        await child.at("restoring")
        wire.network.stalled = True
        code, seconds = await child.stopped(signal.SIGTERM)
    assert code in {0, 1}
    assert seconds < STOP_S + GRACE_S + SLACK_S
    wire.network.heal()
    assert await finished(world) == once_each()


async def test_the_second_signal_ends_at_once(wire: Wire, tmp_path: Path) -> None:
    """It waits neither for the deadline nor for Kafka; nothing that was not committed is there."""
    world = await loaded(wire.kafka, tmp_path)
    async with started(world, tmp_path / "child") as child:
        await child.at("ready")
        wire.network.stalled = True
        child.signal(signal.SIGTERM)
        await child.at("stopping")
        code, seconds = await child.stopped(signal.SIGINT)
    assert code == 130
    assert seconds < 1 + SLACK_S
    wire.network.heal()
    assert await finished(world) == once_each()
