"""A bad record never stops the pipeline and never disappears; a bug stops its stage."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from pipeline.codec import MAX_RECORD_BYTES, Codec
from pipeline.effects import Unit
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.worker import Worker
from pipeline.stage import Emit, Event, Outcome, Stores
from pipeline.topics import Topics
from tests.broker.runtime_world import PARTITIONS, World, count_and_pass, running, started, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOUR_MS = 3_600_000


def raising(_: Stores, event: Event[Any]) -> Outcome:
    """A step with a bug."""
    raise KeyError(event.key)


def place_of(world: World) -> int:
    """The partition that the key of these tests is in."""
    (place,) = world.codec.placed(world.topics[world.input], "k")
    return place


def both(one: World, other: World) -> Cluster:
    """One process's cluster that knows the topics of two worlds."""
    topics = Topics(
        {**one.topics, **other.topics}.values(), one.topics.profiles.values(), one.topics.changelogs
    )
    return msgspec.structs.replace(one.cluster(), codec=Codec(topics, PARTITIONS, one.id))


async def test_a_poison_record_stands_alone(kafka: str, tmp_path: Path) -> None:
    """What cannot be decoded is dead-lettered with its provenance; its neighbours pass in order."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(5)))
    await world.send_raw(("k", b"{no json"), topic=world.input)
    await world.send(*(("k", f"r{number}") for number in range(5, 10)))
    async with running(world, stage):
        told = await world.told(at_least=10)
        (dead,) = await world.dead_letters(at_least=1)
    assert told == [f"r{number}#{number + 1}" for number in range(10)]
    assert (dead["dl_topic"], dead["dl_offset"], dead["dl_reason"]) == (world.input, "5", "invalid-value")
    assert (dead["key"], dead["value"], dead["dl_attempts"]) == ("k", "{no json", "1")


async def test_a_stage_with_a_bug_stops_alone(kafka: str, tmp_path: Path) -> None:
    """More than 10 % unexpected exceptions: the stage stops and is unready, the process lives on."""
    world = World(kafka, tmp_path, batch_records=10)
    stage = world.stage(raising)
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(100)))
    async with running(world, stage) as one:
        await until(lambda: one.worker.groups[stage.name].failed is not None, "the stage to stop")
        assert "failed unexpectedly" in one.worker.unready[stage.name]
        assert not one.job.done()
    assert 20 <= len(await world.dead_letters(at_least=20)) <= 40


async def test_a_bug_in_one_stage_stops_no_other(kafka: str, tmp_path: Path) -> None:
    """The other stages of the process go on, its readiness names the one that stopped, the log is loud."""
    world, sound = World(kafka, tmp_path, batch_records=10), World(kafka, tmp_path)
    sound.id = world.id  # two stages of one application
    stages = [world.stage(raising), sound.stage()]
    await world.prepare(stages[0])
    await sound.prepare(stages[1])
    cluster = both(world, sound)
    worker = Worker([Unit(stage=stage) for stage in stages], cluster)
    with capture_logs() as logs:
        async with started(worker, cluster):
            await world.send(*(("k", f"r{number}") for number in range(100)))
            await until(lambda: worker.groups[world.name].failed is not None, "the stage to stop")
            await sound.send(("k", "r"))
            assert await sound.told(at_least=1) == ["r#1"]
            await until(lambda: list(worker.unready) == [world.name], "all others ready")
    assert [log["log_level"] for log in logs if log["event"] == "stage.stopped"] == ["error"]


async def test_a_stage_stops_at_its_first_error_if_asked(kafka: str, tmp_path: Path) -> None:
    """It commits what came before the record and names it; mended, it goes on exactly there."""
    world = World(kafka, tmp_path)
    world.settings = world.settings.model_copy(update={"on_error": {world.name: "stop"}})
    count, bug = count_and_pass(world.output), {"r5"}

    def poisoned(read: Stores, event: Event[Any]) -> Outcome:
        if event.value.at in bug:
            raise KeyError(event.key)
        return count(read, event)

    stage = world.stage(poisoned)
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(10)))
    with capture_logs() as logs:
        async with running(world, stage) as one:
            await until(lambda: one.worker.groups[stage.name].failed is not None, "the stage to stop")
            assert f"stopped at {world.input}[{place_of(world)}] offset 5" in one.worker.unready[stage.name]
    assert [type(log["exc_info"]) for log in logs if log["event"] == "stage.stopped"] == [KeyError]
    assert await world.told() == [f"r{number}#{number + 1}" for number in range(5)]
    bug.clear()
    async with running(world, stage):
        assert await world.told(at_least=10) == [f"r{number}#{number + 1}" for number in range(10)]
    assert await world.dead_letters() == []


async def test_a_too_large_output_is_dead_lettered(kafka: str, tmp_path: Path) -> None:
    """An output over the limit is refused before it is appended; the batch goes on without it."""
    world = World(kafka, tmp_path)
    count = count_and_pass(world.output)

    def inflate(read: Stores, event: Event[Any]) -> Outcome:
        outcome = count(read, event)
        if event.value.at != "large":
            return outcome
        return Outcome(emit=(*outcome.emit, Emit(world.output, event.key, b"x" * (MAX_RECORD_BYTES + 1))))

    stage = world.stage(inflate)
    await world.prepare(stage)
    await world.send(("k", "before"), ("k", "large"), ("k", "after"))
    async with running(world, stage):
        told = await world.told(at_least=2)
        (dead,) = await world.dead_letters(at_least=1)
    assert (told, dead["dl_reason"]) == (["before#1", "after#2"], "too-large")


async def test_a_record_that_the_broker_refuses_is_found(kafka: str, tmp_path: Path) -> None:
    """Of a batch with a timestamp that no broker takes, that record alone is dead-lettered."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage, {world.input: {"message.timestamp.after.max.ms": str(1 << 60)}})
    now = time.time_ns() // 1_000_000
    await world.send(*(("k", f"r{number}") for number in range(11)), at_ms=now)
    await world.send(("k", "from the future"), at_ms=now + 2 * HOUR_MS)
    await world.send(*(("k", f"r{number}") for number in range(11, 20)), at_ms=now)
    async with running(world, stage):
        told = await world.told(at_least=20)
        (dead,) = await world.dead_letters(at_least=1)
    assert told == [f"r{number}#{number + 1}" for number in range(20)]
    assert (dead["dl_offset"], dead["dl_reason"], dead["dl_attempts"]) == ("11", "refused-by-broker", "3")
