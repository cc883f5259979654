"""
A person is erased from a Kafka of their own: afterwards not one byte of theirs is left.

The story of the oracle's traffic plays on a real broker. Retention and compaction are then forced by the
topics' own settings, and every file of the broker and of the stores is searched for the number.
"""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final, final

import msgspec
import phonenumbers
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from rocksdict import Options, Rdict

from pipeline.cli.erase import erase
from pipeline.cli.topics import Target
from pipeline.codec import Record
from pipeline.effects import Unit
from pipeline.identity import Identity
from pipeline.runtime import erasure
from pipeline.runtime.admin import ensure
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.erasure import Person
from pipeline.runtime.erasure_report import is_genuine, public_key
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.runtime.worker import Worker
from pipeline.topics import load
from pipeline.topology import stages
from tests.broker.runtime_world import started, until_it
from tests.broker.test_driver_equals_runtime import cluster_of, play
from tests.topology.oracle_run import SECRET, Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: What the broker waits for before it cleans, in ms: by default half a minute, and minutes.
HASTY: Final = {
    "log.initial.task.delay.ms": "100",
    "log.retention.check.interval.ms": "200",
    "log.cleaner.backoff.ms": "100",
}
ANY_TIME: Final = {"message.timestamp.after.max.ms": str(1 << 60)}
FORCED: Final = {
    "segment.ms": "1",
    "retention.bytes": "1",
    "delete.retention.ms": "0",
    "file.delete.delay.ms": "0",
    "min.cleanable.dirty.ratio": "0.0",
}
LATER_MS: Final = 4_102_444_800_000  #: 2100, after everything in the story


class World:
    """The project's topics on a broker of its own, the story on them, and its stages' folders."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.story = Run(folder / "ledger", webhooks=150).play()
        self.broker = broker
        self.state = folder / "state"
        self.made = stages(self.story.settings(), Identity(SECRET))
        self.cluster: Cluster = cluster_of(broker.bootstrap_servers, self.state)

    async def topics(self, **configs: str) -> tuple[Wanted, ...]:
        """Make the topics, or give them *configs*."""
        topics = load()
        planned = [
            msgspec.structs.replace(each, configs={**each.configs, **ANY_TIME, **configs})
            for each in wanted(topics, topics.profile("dev"), "same", self.made)
        ]
        await ensure({"bootstrap_servers": self.broker.bootstrap_servers}, planned)
        return tuple(planned)

    def person(self) -> tuple[str, str]:
        """Tenant and number of somebody on both systems who did something."""
        active = self.story.driver.table("engagement.contacts")
        return next(
            (one.tenant, one.mobile)
            for key, one in self.story.driver.table("contacts.enriched").items()
            if key in active and len(one.natives) > 1 and one.mobile and self.is_of_one_tenant(one.mobile)
        )

    def is_of_one_tenant(self, mobile: str) -> bool:
        """Whether no other tenant knows the number: theirs would stay."""
        raw = self.story.driver.records("sources.received")
        told = {(record.key or b"").partition(b":")[0] for record in raw if has(written(mobile), record)}
        return len(told) == 1

    async def found(self, tenant: str, mobile: str) -> tuple[Person, Person]:
        """Somebody by the number, and by the contact id of one of their contacts."""
        places = erasure.places_of(load(), "same", self.made)
        at = await erasure.scope(self.cluster.connection, self.cluster.codec, places)
        key = Identity(SECRET).contact_key(tenant, mobile)
        contact_id = self.story.driver.table("contacts.enriched")[key].natives[-1].contact_id
        by_number = await erasure.found(at, tenant, contact_key=key)
        return by_number, await erasure.found(at, tenant, contact_id=contact_id)

    async def command(self, folder: Path, tenant: str, mobile: str, *, plan: bool) -> int:
        """`pipeline erase`, as an operator gives it."""
        file = folder / "pipeline.yaml"
        told = self.story.settings().model_dump(
            mode="json", include={"tenants", "engagement"}, exclude_none=True
        )
        file.write_text(json.dumps({**told, "application_id": "same", "profile": "dev"}))
        target = Target(settings=file, bootstrap_servers=self.broker.bootstrap_servers)
        report = folder / "report.json"
        return await erase(
            tenant=tenant, mobile=mobile, target=target, yes=True, plan=plan, report=report, json=True
        )

    async def erase(self, folder: Path, tenant: str, mobile: str) -> int:
        """Erase somebody while all stages run."""
        worker = Worker([Unit(stage=stage) for stage in self.made], self.cluster)
        async with started(worker, self.cluster):
            await worker.until_ready()
            return await self.command(folder, tenant, mobile, plan=False)

    async def people(self) -> int:
        """How many people stand in ``contacts.enriched``."""
        async with reading(self.cluster.connection, ("contacts.enriched",), 2) as reader:
            table = {record.key: record.value async for record in reader.everything()}
        return sum(value is not None for value in table.values())

    async def clean(self) -> None:
        """Force retention and compaction: a later record closes each segment that told of anybody."""
        planned = await self.topics(**FORCED)
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap_servers)
        await producer.start()
        try:
            for at_ms in (LATER_MS, LATER_MS + 1_000):
                for topic in planned:
                    for number in range(topic.partitions):
                        await producer.send(
                            topic.name, b"later", b"later", partition=number, timestamp_ms=at_ms
                        )
                await producer.flush()
        finally:
            await producer.stop()
        for folder in {file.parent for file in self.state.rglob("CURRENT")}:
            compact(folder)


def compact(folder: Path) -> None:
    """Let a store drop what was deleted."""
    store = Rdict(str(folder), options=Options(raw_mode=True))
    store.flush()
    store.compact_range(None, None)
    store.close()


def written(mobile: str) -> list[bytes]:
    """The number in E.164 and in national digits."""
    return [mobile.encode(), str(phonenumbers.parse(mobile).national_number).encode()]


def has(number: Iterable[bytes], record: Record) -> bool:
    """Whether *number* stands in the value of *record*, however it is written."""
    told = re.sub(rb"\D", b"", record.value or b"")
    return any(digits in told for digits in number)


def files_with(needles: Iterable[bytes], folder: Path) -> list[Path]:
    """Files below *folder* in which any of *needles* stands."""
    found = []
    for file in folder.rglob("*"):
        try:
            raw = file.read_bytes() if file.is_file() else b""
        except FileNotFoundError:  # the broker deleted it just now
            continue
        if any(needle in raw for needle in needles):
            found.append(file)
    return found


def entries_with(needles: list[bytes], folder: Path) -> Iterator[Any]:
    """Keys of stores' entries in which any of *needles* stands: their files are compressed."""
    for place in {file.parent for file in folder.rglob("CURRENT")}:
        store = Rdict(str(place), options=Options(raw_mode=True))
        entries: Iterator[tuple[Any, Any]] = iter(store.items())
        yield from (k for k, v in entries if any(n in k or n in v for n in needles))
        store.close()


@final
class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an erasure."""

    world: Any
    number: list[bytes]
    held: int  #: files and entries with the number before it
    found: tuple[Person, Person]
    planned: dict[str, Any]
    codes: tuple[int, int]
    report: bytes
    others: tuple[int, int]  #: how many have an entry in contacts.enriched, before and after


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def erased(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Erased]:
    """The story, worked off; somebody of it erased; then retention and compaction."""
    folder = tmp_path_factory.mktemp("erasure")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_IDENTITY_SECRET__VALUE", SECRET.decode())
        async with EmbeddedBroker(folder / "kafka", settings=HASTY) as broker:
            world = World(broker, folder)
            await world.topics()
            await play(world.cluster, world.story.driver, world.made)
            yield await everything(world, folder)


async def everything(world: World, folder: Path) -> Erased:
    """Plan, erase, clean."""
    tenant, mobile = world.person()
    number = written(mobile)
    held = min(len(files_with(number, world.broker.data_dir)), len(list(entries_with(number, world.state))))
    found = await world.found(tenant, mobile)
    with redirect_stdout(io.StringIO()) as told:
        planned = await world.command(folder, tenant, mobile, plan=True)
        before = await world.people()
        done = await world.erase(folder, tenant, mobile)
    after = await world.people()
    await world.clean()
    return Erased(
        world=world,
        number=number,
        held=held,
        found=found,
        planned=json.loads(told.getvalue().splitlines()[0]),
        codes=(planned, done),
        report=(folder / "report.json").read_bytes(),
        others=(before, after),
    )


async def test_of_an_erased_person_no_byte_is_left(erased: Erased) -> None:
    """Neither topics nor changelogs nor stores hold the number, once retention and compaction have run."""
    logs, state = erased.world.broker.data_dir, erased.world.state
    assert erased.held > 1
    await until_it(lambda: asyncio.to_thread(lambda: not files_with(erased.number, logs)), "cleaned", 60)
    assert files_with(erased.number, state) == []
    assert list(entries_with(erased.number, state)) == []


async def test_a_contact_id_means_the_same_person_as_the_number(erased: Erased) -> None:
    """Either leads to the contact key, to all native contacts of it, and to the number."""
    by_number, by_id = erased.found
    assert by_number == by_id
    assert len(by_number.keys) == 3
    assert [number.encode() for number in by_number.numbers] == erased.number[:1]


async def test_whoever_reads_redactions_learns_the_keys(erased: Erased) -> None:
    """Pollers and backfills leave out exactly the keys that the report tells."""
    cluster: Cluster = erased.world.cluster
    told = await erasure.redacted(cluster.connection)
    assert told - {"later"} == set(json.loads(erased.report)["keys"])


async def test_nobody_else_is_erased(erased: Erased) -> None:
    """One entry of the table of people is gone, and no other."""
    before, after = erased.others
    assert before - after == 1


async def test_the_plan_tells_what_is_held_where(erased: Erased) -> None:
    """Tables, state and topics with a retention, each with its records."""
    held = {each["topic"]: each for each in erased.planned["held"]}
    tables = {"sakari.contacts", "users.contacts", "contacts.enriched", "engagement.contacts"}
    assert {topic for topic in tables if held[topic]["kind"] == "removed"} == tables
    assert held["same.enrich.natives.changelog"]["kind"] == "removed"
    assert held["sources.received"]["kind"] == "expires"
    assert held["sources.received"]["until"] > "2030"


async def test_the_report_is_complete_signed_and_without_the_number(erased: Erased) -> None:
    """The stages forgot the person while the command waited, and the report can be shown to anybody."""
    report = json.loads(erased.report)
    assert erased.codes == (0, 0)
    assert (report["complete"], {each["kind"] for each in report["after"]}) == (True, {"expires", "kept"})
    assert is_genuine(erased.report, public_key(Identity(SECRET)))
    assert not any(digits in erased.report for digits in erased.number)
