"""Effects and fan-outs: what is not caused by the record at hand, against a real Kafka."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from pipeline.effects import Effect, EffectContext, Unit, nothing
from pipeline.errors import Unavailable
from pipeline.events import Tick
from pipeline.instants import Time
from pipeline.stage import NOTHING, Cursor, Emit, Event, Outcome, Put, Stage, Stores
from tests.broker.runtime_world import COUNTS, World, running, until, until_it

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAN_OUT = 2_500


def fan_out(world: World) -> Stage:
    """A stage that answers each record with `FAN_OUT` outputs, 500 a call."""

    def step(_: Stores, event: Event[Any]) -> Outcome:
        return Outcome(more=(Cursor(event.key, "0"),))

    def resume(_: Stores, cursor: Cursor) -> Outcome:
        at = int(cursor.at)
        tick = Tick(Time(""))
        emit = tuple(Emit(world.output, cursor.job, tick, subject=f"{n}") for n in range(at, at + 500))
        more = (Cursor(cursor.job, str(at + 500)),) if at + 500 < FAN_OUT else ()
        return Outcome(emit=emit, more=more)

    return world.stage(step, resume=resume)


async def test_a_fan_out_survives_a_kill(kafka: str, tmp_path: Path) -> None:
    """A cursor is committed with its outputs: after a kill the rest follows, each output once."""
    world = World(kafka, tmp_path)
    stage = fan_out(world)
    await world.prepare(stage)
    await world.send(("k", "r"))
    async with running(world, stage) as one:
        await world.records(at_least=500)
        await one.kill()
    async with running(world, stage, folder=tmp_path / "other disk"):
        told = await world.told(at_least=FAN_OUT)
    assert told == [str(number) for number in range(FAN_OUT)]


def source(world: World, effect: Effect) -> Unit:
    """A unit that reads nothing and has *effect*."""
    return Unit(stage=world.stage(nothing), effect=effect, reads=False)


def adding_one(world: World) -> Callable[[Stores], Outcome]:
    """A change that counts up from the newest state and tells the count."""

    def change(read: Stores) -> Outcome:
        count = (read.get(COUNTS, "k") or 0) + 1
        told = Emit(world.output, "k", Tick(Time("")), subject=f"{read.partition}#{count}")
        return Outcome(writes=(Put(COUNTS, "k", count),), emit=(told,))

    return change


async def test_a_commit_returns_when_it_stands(kafka: str, tmp_path: Path) -> None:
    """Commits of one moment each see the one before; afterwards the committed view has them all."""
    world = World(kafka, tmp_path)
    seen: dict[int, int | None] = {}

    async def effect(context: EffectContext) -> None:
        change = adding_one(world)
        await asyncio.gather(*(context.commit(change) for _ in range(20)))
        await context.commit(NOTHING)
        seen[context.partition] = context.read.get(COUNTS, "k")

    unit = source(world, effect)
    await world.prepare(unit.stage)
    async with running(world, unit):
        await until(lambda: len(seen) == 2, "both effects")
    assert seen == {0: 20, 1: 20}
    assert sorted(await world.told(at_least=40)) == sorted(f"{p}#{n + 1}" for p in (0, 1) for n in range(20))


async def test_an_effect_that_failed_begins_again(kafka: str, tmp_path: Path) -> None:
    """An effect's exception costs its session; the next one goes on from what is committed."""
    world = World(kafka, tmp_path)

    async def effect(context: EffectContext) -> None:
        while (context.read.get(COUNTS, "k") or 0) < 4:
            await context.commit(adding_one(world))
            if (context.read.get(COUNTS, "k") or 0) == 2:
                raise Unavailable("the API is away")
        await asyncio.Event().wait()

    unit = source(world, effect)
    await world.prepare(unit.stage)
    async with running(world, unit):
        told = await world.told(at_least=8)
    assert sorted(told) == sorted(f"{p}#{n + 1}" for p in (0, 1) for n in range(4))


async def test_two_processes_never_both_commit(kafka: str, tmp_path: Path) -> None:
    """While partitions move between two processes, each count is committed by one of them."""
    world = World(kafka, tmp_path)

    async def effect(context: EffectContext) -> None:
        while True:
            await context.commit(adding_one(world))

    unit = source(world, effect)
    await world.prepare(unit.stage)
    async with running(world, unit, folder=tmp_path / "a") as first:
        await world.records(at_least=10)
        async with running(world, unit, folder=tmp_path / "b") as second:
            await until(lambda: len(first.tasks()) == len(second.tasks()) == 1, "a partition each")
            await second.ready()
        await until(lambda: len(first.tasks()) == 2, "both again")
        await first.ready()
        before = len(await world.records())
        told = await world.told(at_least=before + 10)
    for partition in ("0", "1"):
        mine = [int(text.split("#")[1]) for text in told if text.startswith(partition)]
        assert mine == list(range(1, len(mine) + 1))


async def test_a_source_that_reads_nothing_stays_in_its_group(kafka: str, tmp_path: Path) -> None:
    """Its member fetches although nothing comes, or it would be taken for stuck and lose its partitions."""
    world = World(kafka, tmp_path)
    begun: list[int] = []

    async def effect(context: EffectContext) -> None:
        begun.append(context.partition)
        await asyncio.Event().wait()

    unit = source(world, effect)
    await world.prepare(unit.stage)
    async with running(world, unit) as one:
        await one.ready()
        consumer = one.worker.groups[unit.stage.name]._consumer
        assert consumer is not None

        async def fetches_again() -> bool:
            return bool(consumer._subscription.fetcher_idle_time < 1)

        await until_it(fetches_again, "a fetch")
        ended = consumer._subscription._last_fetch_ended
        await until(lambda: consumer._subscription._last_fetch_ended > ended, "another fetch")
    assert sorted(begun) == [0, 1]


async def test_a_source_does_not_look_for_what_it_does_not_read(kafka: str, tmp_path: Path) -> None:
    """Its positions are given: asking for them again and again troubles a broker that leads no more."""
    world = World(kafka, tmp_path)

    async def effect(context: EffectContext) -> None:
        await asyncio.Event().wait()

    unit = source(world, effect)
    await world.prepare(unit.stage)
    await world.send(("k", "1"), ("k", "2"))
    (place,) = world.codec.placed(world.topics[world.input], "k")
    await _forget(kafka, TopicPartition(world.input, place), before=2)
    async with running(world, unit) as one:
        await one.ready()
        consumer = one.worker.groups[unit.stage.name]._consumer
        assert consumer is not None
        assert await consumer.position(TopicPartition(world.input, place)) == 0


async def _forget(kafka: str, place: TopicPartition, *, before: int) -> None:
    """Remove what is there, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()
