"""Topics of a test's own with records that stand at known places, and `pipeline tail` as a process."""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from pipeline.codec import Record
from pipeline.contracts.schemas import example
from pipeline.runtime.admin import ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.following import Follower, following
from pipeline.runtime.topic_plan import Wanted
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.tail.condition import Condition
from pipeline.tail.session import Session, Span

#: An hour ago: Kafka refuses what is far in the future.
START_MS = int(time.time() - 3_600) * 1_000
TYPE = "users.tag.v1"
PATIENCE_S = 40


async def topic_of(kafka: str, partitions: int = 2) -> str:
    """A new topic."""
    name = f"t{uuid.uuid4().hex[:8]}.tail"
    configs = {"retention.ms": "-1"}
    wanted = Wanted(name=name, partitions=partitions, replication=1, configs=configs, keyed=True)
    await ensure({"bootstrap_servers": kafka}, [wanted])
    return name


def tag(n: int) -> bytes:
    """The *n*-th value: a location tag of tenant acme or bolt."""
    return orjson.dumps(example(TYPE) | {"tag_id": str(n), "tenant": "acme" if n % 2 else "bolt"})


async def written(
    kafka: str,
    topic: str,
    numbers: Sequence[int],
    *,
    partition: int = 0,
    type_: str = TYPE,
    commit: bool = True,
) -> None:
    """Write the values of *numbers*, a second apart from each other, in a transaction."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"t{uuid.uuid4().hex}")
    headers = [("ce_type", type_.encode())]
    async with asyncio.timeout(PATIENCE_S), producer:
        await producer.begin_transaction()
        sent = []
        for n in numbers:
            place = {"partition": partition, "timestamp_ms": START_MS + n * 1_000, "headers": headers}
            sent.append(await producer.send(topic, tag(n), f"acme:{n}".encode(), **place))
        await asyncio.gather(*sent)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    await _ended(kafka, TopicPartition(topic, partition))


async def _ended(kafka: str, place: TopicPartition) -> None:
    """Return when no transaction is open at *place*: the end of one reaches it after its producer is told."""
    readers = [
        AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level=level)
        for level in ("read_committed", "read_uncommitted")
    ]
    async with asyncio.timeout(PATIENCE_S), readers[0], readers[1]:
        while len({(await each.end_offsets([place]))[place] for each in readers}) > 1:  # noqa: ASYNC110 - Kafka does not tell
            await asyncio.sleep(0.02)


@asynccontextmanager
async def follower_of(kafka: str, topic: str, partitions: int = 2) -> AsyncIterator[Follower]:
    """A follower of *topic*."""
    connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings(), "tests")
    async with following(connection, topic, partitions) as follower:
        yield follower


async def read(follower: Follower, condition: Condition | None = None, **span: Any) -> list[int]:
    """The numbers that a session which does not follow gives for *span*."""
    session = Session(follower, Span(**{"follow": False, **span}), condition)
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        async for records in session.records():
            found += records
    return numbers_of(found)


def numbers_of(records: Sequence[Record]) -> list[int]:
    """The numbers of the values of *records*."""
    return [int(orjson.loads(record.value or b"")["tag_id"]) for record in records]


@asynccontextmanager
async def tailing(kafka: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`pipeline tail` with *words* as a process; killed at the end of the block where it still runs."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline", "tail", *words, "--bootstrap-servers", kafka,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def output_of(kafka: str, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `pipeline tail` with *words*."""
    async with tailing(kafka, *words) as program:
        out, err = await program.communicate()
    return program.returncode or 0, out.decode(), err.decode()


async def until_line(
    program: asyncio.subprocess.Process, holds: Callable[[str], bool], write: Callable[[], Any]
) -> str:
    """The first line that *holds*; *write* is done again and again until there is one."""
    assert program.stdout is not None
    line = asyncio.ensure_future(program.stdout.readline())
    while True:
        await write()
        await asyncio.wait((line,), timeout=0.2)
        if line.done():
            if holds(text := line.result().decode()):
                return text
            assert text, "it ended"
            line = asyncio.ensure_future(program.stdout.readline())
