"""Exactly once against a real Kafka: outputs, changelog and offsets stand together or not at all."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.codec import Places
from pipeline.errors import BrokerError
from pipeline.headers import encoded
from pipeline.runtime import names
from pipeline.runtime.transaction import BARRIER, TransactionalProducer
from tests.broker.runtime_world import COUNTS, World, count_and_pass, running, topic_names

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


class _DiesBeforeCommit:
    """Stands in for `TransactionalProducer.commit`: sends the outputs, then fails so many times."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    async def __call__(self, producer: TransactionalProducer, places: Places) -> Any:
        await producer._producer.begin_transaction()
        await producer._send(places)
        self.left -= 1
        raise BrokerError("died between the produce and the commit")


async def test_what_dies_between_produce_and_commit_was_never_there(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and changelog of an unfinished transaction are not read, and the replay gives each once."""
    world = World(kafka, tmp_path, batch_records=5)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(12)))
    commit, dying = TransactionalProducer.commit, _DiesBeforeCommit(2)

    async def dies_at_first(producer: TransactionalProducer, outputs: Any, offsets: Any) -> Any:
        if dying.left and offsets:
            return await dying(producer, outputs)
        return await commit(producer, outputs, offsets)

    monkeypatch.setattr(TransactionalProducer, "commit", dies_at_first)
    async with running(world, stage):
        told = await world.told(at_least=12)
    assert dying.left == 0
    assert told == [f"r{number}#{number + 1}" for number in range(12)]
    kept = await world.records(names.changelog(world.id, stage.name, COUNTS))
    log = [record for record in kept if record.key != BARRIER]
    assert (log[-1].value, len(log)) == (b"\x0c", len({record.offset for record in log}))


async def test_a_killed_worker_goes_on_where_it_stood(kafka: str, tmp_path: Path) -> None:
    """Kill at any moment under load: the next one counts every record exactly once."""
    world = World(kafka, tmp_path, batch_records=7)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number % 3}", f"r{number}") for number in range(600)))
    for at_least in (30, 200):
        async with running(world, stage) as one:
            await one.until_committed(at_least)
            await one.kill()
    async with running(world, stage):
        told = await world.told(at_least=600)
    assert sorted(told) == sorted(f"r{number}#{number // 3 + 1}" for number in range(600))


async def test_a_stop_under_load_loses_and_repeats_nothing(kafka: str, tmp_path: Path) -> None:
    """An orderly stop ends with the batch committed; a second start goes on with the next record."""
    world = World(kafka, tmp_path, batch_records=20)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(500)))
    async with running(world, stage) as one:
        await one.until_committed(50)
        await one.stop()
    some = await world.told()
    async with running(world, stage):
        told = await world.told(at_least=500)
    assert 50 < len(some) <= 500
    assert told == [f"r{number}#{number + 1}" for number in range(500)]


async def test_several_inputs_share_one_state(kafka: str, tmp_path: Path) -> None:
    """Records of one key on two topics meet in one task, earliest first, the first input on a tie."""
    world = World(kafka, tmp_path)
    stage = world.stage(inputs=(world.side, world.input))
    await world.prepare(stage)
    await world.send(("k", "first"), topic=world.input, at_ms=1_000)
    await world.send(("k", "tied-later"), topic=world.input, at_ms=2_000)
    await world.send(("k", "tied-first"), topic=world.side, at_ms=2_000)
    await world.send(("k", "last"), topic=world.side, at_ms=3_000)
    async with running(world, stage):
        told = await world.told(at_least=4)
    assert sorted(text.split("#")[1] for text in told) == ["1", "2", "3", "4"]


async def test_a_zombie_adds_nothing(kafka: str, tmp_path: Path) -> None:
    """Once another producer has the task's id, the former owner's commit fails and shows nothing."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    connection, group = world.cluster().connection, names.group_id(world.id, stage.name)
    zombie = TransactionalProducer(connection, f"{world.id}.zombie.0", group, 10)
    heir = TransactionalProducer(connection, f"{world.id}.zombie.0", group, 10)
    places: Places = {(world.output, 0): [(1, b"k", b"{}", encoded([("ce_subject", b"zombie")]))]}
    await zombie.start()
    await heir.start()
    with pytest.raises(BrokerError):
        await zombie.commit(places, {})
    await heir.commit({(world.output, 0): [(1, b"k", b"{}", encoded([("ce_subject", b"heir")]))]}, {})
    await zombie.drop()
    await heir.drop()
    assert await world.told(at_least=1) == ["heir"]


async def test_nothing_but_its_own_topics_is_made(kafka: str, tmp_path: Path) -> None:
    """A worker makes no topic by itself, such as by asking for one that is not there."""
    world = World(kafka, tmp_path)
    stage = world.stage(step=count_and_pass(world.output))
    await world.prepare(stage)
    before = await topic_names(world)
    async with running(world, stage) as one:
        await one.ready()
    assert await topic_names(world) == before
