"""The two programs of the README, run as a reader would run them, against a real Kafka."""

import asyncio
import re
import sys
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from pipeline.codec import Codec, Output
from pipeline.events import Activity, ConversationStarted
from pipeline.instants import Time
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import wanted
from pipeline.stage import Emit, Event
from pipeline.topics import load

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
TOPIC = "activity.enriched"
PATIENCE_S = 60
AT = Time("2026-11-23T13:03:14.990Z")


def activity(contact_key: str) -> Output:
    """A record of an activity of *contact_key*, as enrich writes it."""
    fact = ConversationStarted(tenant="acme", account_id="a1", occurred_at=AT, conversation_id="c1")
    value = Activity(tenant="acme", contact_key=contact_key, fact_id="f1", event=fact)
    cause = Event(topic="sakari.events", key=contact_key, value=fact, id="f1", received_at=1, occurred_at=AT)
    emit = Emit(TOPIC, contact_key, value, id=contact_key, occurred_at=AT)
    return Codec(load(), 2).encode(emit, cause, "enrich", 0)[0]


async def written(kafka: str, contact_key: str, *, commit: bool) -> None:
    """Write one activity in a transaction that is committed, or not."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"t{uuid.uuid4().hex}")
    output = activity(contact_key)
    async with asyncio.timeout(PATIENCE_S), producer:
        await producer.begin_transaction()
        sent = await producer.send(TOPIC, output.value, output.key, output.partition, headers=output.headers)
        await sent
        await (producer.commit_transaction() if commit else producer.abort_transaction())


async def printed_until(program: asyncio.subprocess.Process, text: str) -> list[str]:
    """The lines that *program* prints, up to the first that holds *text*."""
    assert program.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while not lines or text not in lines[-1]:
            line = await program.stdout.readline()
            assert line, f"it ended after {lines}"
            lines.append(line.decode().rstrip())
    return lines


async def started(snippet: str, folder: Path, kafka: str) -> asyncio.subprocess.Process:
    """*snippet*, saved and started as the README says, in a consumer group of this test."""
    file = folder / "subscribe.py"
    file.write_text(snippet.replace('"my-team"', f'"t{uuid.uuid4().hex}"'))
    return await asyncio.create_subprocess_exec(
        sys.executable, str(file), kafka, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("snippet", "told"),
    [
        (SNIPPETS[0], "2026-11-23 13:03:14.990000+00:00 {key} ConversationStarted []"),
        (SNIPPETS[1], "activity.enriched.v1 {key} {at} "),
    ],
    ids=["subscribe", "json"],
)
async def test_a_program_of_the_readme_prints_what_is_committed(
    kafka: str, tmp_path: Path, snippet: str, told: str
) -> None:
    """It prints each committed activity, and none of an aborted transaction."""
    topics = load()
    only = [each for each in wanted(topics, topics.profile("dev"), "unused") if each.name == TOPIC]
    await ensure({"bootstrap_servers": kafka}, only)
    aborted, committed = (f"acme:m:{uuid.uuid4().hex}" for _ in range(2))
    await written(kafka, aborted, commit=False)
    await written(kafka, committed, commit=True)
    program = await started(snippet, tmp_path, kafka)
    try:
        lines = await printed_until(program, committed)
    finally:
        program.kill()
        await program.wait()
    assert told.format(at=AT, key=committed) in lines[-1]
    assert not [line for line in lines if aborted in line]
