"""Kafka goes and comes back in every way it can: work goes on by itself, or the process ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from structlog.testing import capture_logs

from pipeline.effects import Unit
from pipeline.errors import BrokerError, Stuck
from pipeline.headers import NO_HEADERS
from pipeline.runtime import names
from pipeline.runtime.group import Group
from pipeline.runtime.health import AdminServer
from pipeline.runtime.transaction import TransactionalProducer
from pipeline.runtime.worker import Worker
from pipeline.settings import AdminSettings
from tests.broker.runtime_world import Running, World, running, until
from tests.broker.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 200

#: Seconds for which Kafka is away: longer than a request, a transaction and a session may take.
AWAY_S = 8.0

#: What the watchdog bears where Kafka answers, in seconds: more than joining takes on a busy machine.
PATIENCE_S = 8.0

Act = Callable[[Wire], Awaitable[None]]


def world_of(kafka: str, folder: Path, **settings: Any) -> World:
    """A world where all time-outs are short, so that a short absence is a long one."""
    short = {"request_timeout_ms": 2_000, "transaction_timeout_ms": 3_000, "watchdog_s": 10.0}
    return World(kafka, folder, batch_records=20, **(short | settings))


async def send(world: World, first: int = 0) -> None:
    """Write `COUNT` records, the number *first* first."""
    await world.send(*((f"k{number % 3}", f"r{number}") for number in range(first, first + COUNT)))


def once_each(count: int) -> list[str]:
    """Every record with its place among those of its key: none is missing, none is there twice."""
    return sorted(f"r{number}#{number // 3 + 1}" for number in range(count))


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[Running]:
    """A worker of *world* that is in the middle of its work."""
    await world.prepare(world.stage())
    async with running(world, world.stage()) as one:
        await one.ready()
        await send(world)
        await one.until_committed(COUNT // 4)
        yield one


async def frozen(wire: Wire) -> None:
    """It does nothing, and its connections stay."""
    wire.node.freeze()


async def killed(wire: Wire) -> None:
    """It is gone, and its ports with it."""
    await wire.node.kill()


async def stalled(wire: Wire) -> None:
    """The network takes everything and passes nothing on, and no connection is closed."""
    wire.network.stalled = True


async def unreachable(wire: Wire) -> None:
    """Connections are reset, and new ones refused."""
    wire.network.refusing = True
    wire.network.cut()


async def forgotten(wire: Wire) -> None:
    """What is connected is so for nothing, as behind a router that lost its table; new connections work."""
    wire.network.forget()


@pytest.mark.parametrize("goes", [frozen, killed, stalled, unreachable, forgotten])
async def test_work_goes_on_when_kafka_comes_back(wire: Wire, tmp_path: Path, goes: Act) -> None:
    """Away in the middle of work for longer than anything waits: nobody has to restart anything."""
    world = world_of(wire.kafka, tmp_path, watchdog_s=60)
    async with at_work(world) as one:
        await goes(wire)
        await asyncio.wait((one.job,), timeout=AWAY_S)
        await wire.heal()
        await send(world, COUNT)
        assert sorted(await world.told(at_least=2 * COUNT)) == once_each(2 * COUNT)


async def test_a_process_outlives_a_kafka_that_stays_away(wire: Wire, tmp_path: Path) -> None:
    """Beyond every patience of the watchdog it goes on, unready and alive, and works when Kafka is back."""
    world = world_of(wire.kafka, tmp_path, watchdog_s=4.0)
    with capture_logs() as logs:
        async with at_work(world) as one:
            await stalled(wire)
            away = [lambda n=n: len(told(logs, "kafka.away")) > n for n in range(3)]
            for holds in away:
                await until(holds, "one more doubt")
            assert one.worker.unready[world.name].startswith("no progress for ")
            assert (one.worker.stuck, told(logs, "stage.stuck")) == ({}, [])
            await wire.heal()
            assert sorted(await world.told(at_least=COUNT)) == once_each(COUNT)


def told(logs: list[Any], event: str) -> list[Any]:
    """Those of *logs* that tell of *event*."""
    return [log for log in logs if log["event"] == event]


async def test_a_producer_that_is_given_up_leaves_nothing_running(wire: Wire, tmp_path: Path) -> None:
    """What it had begun for its requests would otherwise go on for ever, once for each failure."""
    world = world_of(wire.kafka, tmp_path)
    await world.prepare(world.stage())
    before = asyncio.all_tasks()
    producer = TransactionalProducer(world.cluster().connection, world.id, world.id, 10)
    await producer.start()
    await stalled(wire)
    with pytest.raises(BrokerError, match="committing a transaction"):
        await producer.commit({(world.output, 0): [(1, b"k", b"{}", NO_HEADERS)]}, {})
    await producer.drop()
    clients = {task for task in asyncio.all_tasks() - before if "aiokafka" in str(task.get_coro())}
    await wire.heal()
    assert clients == set()


async def test_a_group_that_stands_joins_anew(kafka: str, tmp_path: Path) -> None:
    """Its consumer fetches nothing, for whatever reason: a fresh one does, and nobody restarts anything."""
    world = world_of(kafka, tmp_path, watchdog_s=PATIENCE_S)
    await world.prepare(world.stage())
    async with running(world, world.stage()) as one:
        await one.ready()
        (group,) = one.worker.groups.values()
        assert group._consumer is not None
        group._consumer.pause(*group._consumer.assignment())
        await send(world)
        assert sorted(await world.told(at_least=COUNT)) == once_each(COUNT)
        assert one.cluster.metrics.rejoins.labels(world.name)._value.get() == 1


async def test_a_process_that_cannot_help_itself_ends(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fresh clients stand as well though Kafka answers, it ends and says why, no longer alive."""
    monkeypatch.setattr(AIOKafkaConsumer, "resume", lambda *_: None)  # no consumer ever fetches
    world = world_of(kafka, tmp_path, watchdog_s=PATIENCE_S)
    await world.prepare(world.stage())
    worker = Worker([Unit(stage=world.stage())], world.cluster())
    await send(world)
    with pytest.raises(ExceptionGroup) as ended:
        await worker.run()
    assert ended.group_contains(Stuck, match="made no progress for .* though Kafka answers")
    assert "fresh clients neither" in worker.stuck[world.name]


async def test_a_stuck_process_says_that_it_is_not_alive(kafka: str, tmp_path: Path) -> None:
    """Whoever watches the process learns which stage is stuck, even if its end should take long."""
    stuck: dict[str, str] = {}
    cluster = World(kafka, tmp_path).cluster()
    admin = AdminServer(AdminSettings(port=0), cluster.metrics, dict, lambda: stuck)
    before = await admin._live(None)  # type: ignore[arg-type] # it looks at no request
    stuck["enrich"] = "made no progress"
    after = await admin._live(None)  # type: ignore[arg-type]
    assert (before.status, after.status) == (200, 503)
    assert b"made no progress" in bytes(after.body)  # type: ignore[arg-type]


async def test_a_consumer_that_lost_its_coordination_is_replaced(kafka: str, tmp_path: Path) -> None:
    """The client's own task ended by an error of its own: it would fetch on and never rebalance again."""
    world = world_of(kafka, tmp_path, watchdog_s=60)
    await world.prepare(world.stage())
    async with running(world, world.stage()) as one:
        await one.ready()
        (group,) = one.worker.groups.values()
        lost = group._consumer
        assert lost is not None
        lost._coordinator._coordination_task.cancel()
        await until(lambda: group._consumer not in {None, lost}, "another consumer")
        await send(world)
        assert sorted(await world.told(at_least=COUNT)) == once_each(COUNT)


async def test_a_commit_that_the_cluster_forgets_is_told(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here can undo that, but nobody has to find it out from numbers."""
    world = world_of(kafka, tmp_path, watchdog_s=60)
    with capture_logs() as logs:
        async with at_work(world) as one:
            await world.told(at_least=COUNT)
            monkeypatch.setattr(Group, "committed", forgetful)
            for number in one.tasks():
                await fence(world, number)
            await send(world, COUNT)
            await until(lambda: bool(told(logs, "offset.lost")), "the loss in the log")
    assert {(log["log_level"], log["topic"]) for log in told(logs, "offset.lost")} == {("error", world.input)}


async def forgetful(group: Group, partition: int) -> dict[str, int | None]:
    """Nothing was ever committed."""
    return dict.fromkeys(group._followed(partition))


async def fence(world: World, number: int) -> None:
    """Make the next commit of the task on partition *number* fail, so that it begins anew."""
    connection, id_ = world.cluster().connection, names.transactional_id(world.id, world.name, number)
    heir = TransactionalProducer(connection, id_, names.group_id(world.id, world.name), 10)
    await heir.start()
    await heir.drop()
