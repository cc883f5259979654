"""A store comes back from its changelog: the tail where the disk was kept, everything where it was lost."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from pipeline.runtime import connection, names, restore, store
from pipeline.runtime.transaction import BARRIER
from tests.broker.runtime_world import COUNTS, PARTITIONS, Running, World, running, until, until_it

pytestmark = pytest.mark.asyncio(loop_scope="session")

Logs = list[Any]


def changelog(world: World) -> str:
    """The changelog of the world's counts."""
    return names.changelog(world.id, world.name, COUNTS)


async def idle(one: Running) -> None:
    """Return when nothing is left to do."""
    await until(lambda: bool(one.tasks()) and all(task.idle for task in one.tasks().values()), "idle")


async def logged(world: World, folder: Path, first: int, end: int) -> Logs:
    """Let a worker on *folder* count records *first* to *end* over ten keys; what it logs."""
    await world.send(*((f"k{number % 10}", f"r{number}") for number in range(first, end)))
    with capture_logs() as logs:
        async with running(world, world.stage(), folder=folder) as one:
            await world.told(at_least=end)
            await idle(one)
    return logs


def restored(logs: Logs) -> int:
    """How many records all restores applied."""
    return sum(each["records"] for each in logs if each["event"] == "store.restored")


def reasons(logs: Logs) -> list[str]:
    """Why stores were discarded or wiped."""
    return [each["reason"] for each in logs if each["event"] in ("store.wiped", "store.discarded")]


async def kept(world: World) -> int:
    """Entries in the changelog, without what tasks write to find its end."""
    return sum(record.key != BARRIER for record in await world.records(changelog(world)))


async def first_offsets(world: World) -> dict[int, int]:
    """The offset of the first data record in each partition of the changelog."""
    records = await world.records(changelog(world))
    return {record.partition: record.offset for record in reversed(records)}


async def counted(world: World, records: int) -> None:
    """Check that each of *records* records was counted once, in order."""
    told = await world.told(at_least=records)
    assert sorted(told) == sorted(f"r{number}#{number // 10 + 1}" for number in range(records))


async def fill(world: World, keys: int, *, abort: bool = False) -> None:
    """Write the count 1 of *keys* keys to the changelog, in one transaction of each partition."""
    value = msgspec.msgpack.encode(1)
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, transactional_id=f"{world.id}.fill")
    await producer.start()
    try:
        await producer.begin_transaction()
        for key in (f"n{number}" for number in range(keys)):
            (place,) = world.codec.placed(world.topics[world.input], key)
            await producer.send(changelog(world), value, key.encode(), partition=place)
        await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


async def ends(world: World) -> dict[TopicPartition, int]:
    """The end offsets of the changelog."""
    consumer = AIOKafkaConsumer(bootstrap_servers=world.kafka)
    await consumer.start()
    try:
        places = [TopicPartition(changelog(world), number) for number in range(PARTITIONS)]
        return dict(await consumer.end_offsets(places))
    finally:
        await consumer.stop()


async def delete_all(world: World) -> None:
    """Remove every record of the changelog, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        found = await ends(world)
        await admin.delete_records(
            {place: RecordsToDelete(before_offset=end) for place, end in found.items()}
        )
    finally:
        await admin.close()


async def test_a_lost_disk_is_restored_in_full(kafka: str, tmp_path: Path) -> None:
    """On an empty disk every changelog record is applied, once."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    assert restored(await logged(world, tmp_path / "lost", 0, 30)) == 0
    there = await kept(world)
    assert restored(await logged(world, tmp_path / "new", 30, 60)) == there >= 10
    await counted(world, 60)


async def test_an_end_that_is_told_too_low_is_not_believed(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was frozen answers as if it still led; what it missed is restored all the same."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "lost", 0, 30)
    truth = AIOKafkaConsumer.end_offsets

    async def before_all_that(consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> Any:
        return await (truth if consumer._group_id else AIOKafkaConsumer.beginning_offsets)(consumer, places)

    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaConsumer, "end_offsets", before_all_that)
        await logged(world, tmp_path / "new", 30, 60)
    await counted(world, 60)


async def test_a_kept_disk_restores_the_tail_only(kafka: str, tmp_path: Path) -> None:
    """What the disk holds is not read again; what another worker did meanwhile is, and nothing else."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "a", 0, 30)
    assert restored(await logged(world, tmp_path / "a", 30, 40)) == 0
    before = await kept(world)
    await logged(world, tmp_path / "b", 40, 50)
    tail = await kept(world) - before
    assert restored(await logged(world, tmp_path / "a", 50, 60)) == tail > 0
    await counted(world, 60)


async def test_control_records_at_the_end_are_passed(kafka: str, tmp_path: Path) -> None:
    """The last record of a partition is a marker, also of an aborted transaction."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "a", 0, 30)
    await fill(world, 40, abort=True)
    records = await world.records(changelog(world))
    for place, end in (await ends(world)).items():
        assert end > 10 + max(record.offset for record in records if record.partition == place.partition)
    assert restored(await logged(world, tmp_path / "a", 30, 40)) == 0
    there = await kept(world)
    assert restored(await logged(world, tmp_path / "b", 40, 50)) == there
    await counted(world, 50)


async def test_holes_of_compaction_are_passed(kafka: str, tmp_path: Path) -> None:
    """The broker's cleaner has removed what was replaced; a lost disk is restored from what is left."""
    world = World(kafka, tmp_path)
    eager = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"}
    await world.prepare(world.stage(), {changelog(world): eager})
    for first in range(0, 90, 30):
        await logged(world, tmp_path / "a", first, first + 30)

    async def cleaned() -> bool:
        return min((await first_offsets(world)).values()) > 0

    await until_it(cleaned, "cleaned", deadline_s=90)
    there = await kept(world)
    assert 0 < restored(await logged(world, tmp_path / "b", 90, 120)) <= there
    await counted(world, 120)


@pytest.mark.parametrize("disk", ["lost", "kept"])
async def test_an_emptied_changelog_is_an_empty_store(kafka: str, tmp_path: Path, disk: str) -> None:
    """Its beginning is its end, and above 0; what a disk has that reaches below it is wiped."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage(), {changelog(world): {"cleanup.policy": "compact,delete"}})
    await logged(world, tmp_path / "kept", 0, 30)
    await delete_all(world)
    logs = await logged(world, tmp_path / disk, 30, 40)
    assert restored(logs) == 0
    assert len(reasons(logs)) == (PARTITIONS if disk == "kept" else 0)
    counts = Counter(text.split("#")[1] for text in await world.told())
    assert counts == {"1": 20, "2": 10, "3": 10}


async def test_an_offset_below_the_log_start_costs_a_full_restore(kafka: str, tmp_path: Path) -> None:
    """What was removed between the store and the log's start may have been a tombstone."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage(), {changelog(world): {"cleanup.policy": "compact,delete"}})
    await logged(world, tmp_path / "a", 0, 10)
    await logged(world, tmp_path / "b", 10, 20)
    await delete_all(world)
    await fill(world, 20)
    logs = await logged(world, tmp_path / "a", 20, 30)
    assert [reason.split(" of ")[0].split()[0] for reason in reasons(logs)] == ["offset"] * PARTITIONS
    assert restored(logs) == 20
    assert {text for text in await world.told() if text.startswith("r2") and len(text) > 4} == {
        f"r{number}#1" for number in range(20, 30)
    }


async def test_an_offset_beyond_the_end_costs_a_full_restore(kafka: str, tmp_path: Path) -> None:
    """The changelog is not the one that the store was made from."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "b", 0, 30)
    for partition in range(PARTITIONS):
        local = world.cluster(tmp_path / "a").local_store(world.stage(), partition)
        local.open()
        local.apply([(b"counts\0k1", msgspec.msgpack.encode(99))], {changelog(world): 1_000_000})
        local.close()
    there = await kept(world)
    logs = await logged(world, tmp_path / "a", 30, 40)
    assert [reason.split()[1] for reason in reasons(logs)] == ["1000000"] * PARTITIONS
    assert restored(logs) == there
    await counted(world, 40)


def flipped(file: Path) -> None:
    """Flip every byte of *file* but the last thousand, which say what is where."""
    data = file.read_bytes()
    file.write_bytes(bytes(byte ^ 0xFF for byte in data[:-1_000]) + data[-1_000:])


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no CURRENT": ("CURRENT", Path.unlink),
    "nonsense in CURRENT": ("CURRENT", lambda file: file.write_bytes(b"nonsense")),
    "nonsense in MANIFEST": ("MANIFEST-*", lambda file: file.write_bytes(b"nonsense")),
    "no table": ("*.sst", Path.unlink),
    "flipped bytes in a table": ("*.sst", flipped),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_discarded_and_rebuilt(kafka: str, tmp_path: Path, damage: str) -> None:
    """Files that RocksDB refuses, or finds spoilt while a record is processed, cost a full restore only."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "a", 0, 30)
    pattern, spoil = DAMAGES[damage]
    files = list((tmp_path / "a").rglob(pattern))
    for file in files:
        spoil(file)
    there = await kept(world)
    logs = await logged(world, tmp_path / "a", 30, 40)
    assert len(reasons(logs)) == PARTITIONS <= len(files)
    assert restored(logs) >= there
    await counted(world, 40)
    assert await world.dead_letters() == []


async def test_a_block_found_spoilt_while_working_costs_a_rebuild(kafka: str, tmp_path: Path) -> None:
    """The record that was to be processed is not to blame: it is processed when the store is whole again."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await fill(world, 6_000)
    await logged(world, tmp_path / "a", 0, 10)
    for table in (tmp_path / "a").rglob("*.sst"):
        data, third = table.read_bytes(), table.stat().st_size // 3
        spoilt = bytes(byte ^ 0xFF for byte in data[third : 2 * third])
        table.write_bytes(data[:third] + spoilt + data[2 * third :])
    await world.send(*((f"n{number}", f"n{number}") for number in range(0, 6_000, 20)))
    with capture_logs() as logs:
        async with running(world, world.stage(), folder=tmp_path / "a"):
            told = await world.told(at_least=310)
    assert sorted(told)[:300] == sorted(f"n{number}#2" for number in range(0, 6_000, 20))
    assert ["checksum mismatch" in reason for reason in reasons(logs)] == [True] * PARTITIONS
    assert await world.dead_letters() == []


async def test_a_store_that_is_too_old_is_restored_in_full(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have missed tombstones that the cleaner has removed since."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await logged(world, tmp_path / "a", 0, 30)
    monkeypatch.setattr(store, "MAX_AGE_S", -1)
    there = await kept(world)
    logs = await logged(world, tmp_path / "a", 30, 40)
    assert (reasons(logs), restored(logs)) == (["too old"] * PARTITIONS, there)
    await counted(world, 40)


async def test_a_folder_that_cannot_be_written_is_told_until_it_can(kafka: str, tmp_path: Path) -> None:
    """The log says which folder and what to do; work begins by itself when the folder is there."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await world.send(*(("k", f"r{number}") for number in range(5)))
    (tmp_path / "disk").touch()
    with capture_logs() as logs:
        async with running(world, world.stage(), folder=tmp_path / "disk" / "state"):
            await until(lambda: len(told_errors(logs)) >= PARTITIONS, "told")
            (tmp_path / "disk").unlink()
            await world.told(at_least=5)
    assert all("disk/state" in error and "runtime.state_dir" in error for error in told_errors(logs))


def told_errors(logs: Iterable[Any]) -> list[str]:
    """The errors that ended sessions."""
    return [each["error"] for each in logs if each["event"] == "task.rebuilt"]


MANY = 60_000


def midway(one: Running) -> bool:
    """Whether every task has restored something and has more to restore."""
    tasks = list(one.tasks().values())
    return bool(tasks) and all(
        task.state == "restoring" and task.restore.restored and task.restore.remaining for task in tasks
    )


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore one record at a time, so that there is a middle that outlasts a rebalance."""
    monkeypatch.setattr(restore, "_FETCH_RECORDS", 1)


@pytest.fixture(params=["loaded", "applied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large restore is loaded, a small one applied."""
    monkeypatch.setattr(restore, "LOADED_FROM", 1 if request.param == "loaded" else MANY * 2)


@pytest.mark.usefixtures("slow", "way")
async def test_a_stop_in_the_middle_of_a_restore_loses_nothing(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at once, and the next start goes on where this one was."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await fill(world, MANY)
    with capture_logs() as logs:
        async with running(world, world.stage()) as one:
            await until(lambda: midway(one), "midway")
            done = sum(task.restore.restored for task in one.tasks().values())
            async with asyncio.timeout(world.settings.stop_timeout_s):
                await one.stop()
    assert restored(logs) == 0
    monkeypatch.setattr(restore, "_FETCH_RECORDS", 4_000)
    await world.send(*((f"n{number}", f"r{number}") for number in range(10)))
    with capture_logs() as logs:
        async with running(world, world.stage()):
            assert sorted(await world.told(at_least=10)) == [f"r{number}#2" for number in range(10)]
    assert 0 < restored(logs) <= MANY - done


@pytest.mark.usefixtures("slow")
async def test_a_rebalance_in_the_middle_of_a_restore_loses_nothing(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restores are given up, and begun anew by whoever owns the partition then."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await fill(world, MANY)
    with capture_logs() as logs:
        async with running(world, world.stage(), folder=tmp_path / "a") as one:
            await until(lambda: midway(one), "midway")
            async with running(world, world.stage(), folder=tmp_path / "b") as two:
                await until(lambda: "partitions.revoked" in events(logs), "revoked")
                monkeypatch.setattr(restore, "_FETCH_RECORDS", 4_000)
                await until(lambda: bool(len(one.tasks()) == len(two.tasks()) == 1), "shared")
                await world.send(*((f"n{number}", f"r{number}") for number in range(10)))
                told = await world.told(at_least=10)
                await idle(one)
                await idle(two)
    assert sorted(told) == [f"r{number}#2" for number in range(10)]
    assert events(logs).index("partitions.revoked") < events(logs).index("store.restored")


@pytest.mark.usefixtures("slow")
async def test_large_restores_take_turns(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has lost its disk holds the fetched and unwritten records of a few stores only."""
    monkeypatch.setattr(connection, "LOADS", 1)
    monkeypatch.setattr(restore, "LOADED_FROM", 1)
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await fill(world, 6_000)
    begun: list[int] = []

    def one_at_a_time() -> bool:
        states = {number: task.restore for number, task in one.tasks().items()}
        middle = [number for number, at in states.items() if at.restored and at.remaining]
        assert len(middle) <= 1
        begun.extend(middle)
        return not one.worker.unready

    async with running(world, world.stage()) as one:
        await until(one_at_a_time, "restored")
    assert set(begun) == set(range(PARTITIONS))


def events(logs: Iterable[Any]) -> list[str]:
    """The names of what was logged."""
    return [each["event"] for each in logs]


async def test_the_progress_of_a_restore_is_shown(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log tells records, what remains, the rate and the remaining time; gauges end at what was done."""
    monkeypatch.setattr(restore, "TOLD_EVERY_S", 0.0)
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    await fill(world, MANY)
    with capture_logs() as logs:
        async with running(world, world.stage()) as one:
            await one.ready()
            value = one.cluster.metrics.registry.get_sample_value
            label = [{"stage": world.name, "partition": str(number)} for number in range(PARTITIONS)]
            assert sum(value("pipeline_restore_records", each) or 0 for each in label) == MANY
            assert {value("pipeline_restore_remaining", each) for each in label} == {0}
            assert {value("pipeline_restore_records_per_second", each) for each in label} == {0}
    lines = [each for each in logs if each["event"] == "store.restoring" and each["partition"] == 0]
    assert [each["restored"] for each in lines] == sorted({each["restored"] for each in lines})
    assert lines[0]["remaining"] > lines[-2]["remaining"] > 0
    assert all(each["records_per_s"] > 0 and each["eta_s"] >= 0 for each in lines)


async def test_the_committed_view_shows_what_stands(kafka: str, tmp_path: Path) -> None:
    """An effect reads, and the dev view reads, the values of committed batches."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(5)))
    async with running(world, stage) as one:
        await world.told(at_least=5)
        await idle(one)
        assert {task.read.get(COUNTS, "k") for task in one.tasks().values()} == {None, 5}
