"""Every program of docs/subscribe.md, run by a fresh environment with the base wheel and no extra."""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.codec import Codec
from pipeline.events import Activity, EnrichedContact, LocationTag
from pipeline.instants import Time
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import wanted
from pipeline.stage import Emit, Event
from pipeline.topics import load
from tests.bench.first_record import installed, measured, snippets, wheel
from tests.broker.test_readme_snippet import printed_until
from tests.contract.golden_values import VALUES
from tests.kafka_fixture import running_kafka

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT = Time("2026-11-23T13:03:14.990Z")
KEY = "acme:m:00112233445566778899aabbccddeeff"
FACT = VALUES["sakari.message.received.v1"][2]
ACTIVITY = Activity(tenant="acme", contact_key=KEY, fact_id="f1", event=FACT)
CONTACT = EnrichedContact(tenant="acme", contact_key=KEY, first_name="Ada")
TAG = LocationTag(tenant="acme", location_id="l", tag_id="t", name="VIP")
#: Of the stage runtime and what it needs, nothing may be imported by a subscriber.
RUNTIME = ("pipeline.runtime", "pipeline.settings", "pipeline.stages", "rocksdict", "aiohttp", "pydantic")

#: What each program prints once it works, in the order of the guide.
PRINTED = (
    f"{KEY} 2026-11-23 13:03:14.990000+00:00 []",
    "they wrote",
    "stored",
    FACT.occurred_at,
    f"written {KEY}",
    "skipped invalid-value activity.enriched",
    "1 tags ['VIP']",
    "tested",
)


class Guide(NamedTuple):
    """A Kafka that holds what the programs read, and a Python that has the base install."""

    kafka: str
    wheel: Path
    python: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guide(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guide]:
    """A Kafka of its own: one record there cannot be read, which no other test should meet."""
    folder = tmp_path_factory.mktemp("guide")
    async with running_kafka() as kafka:
        topics = load()
        names = {"contacts.enriched", "activity.enriched", "users.tags"}
        made = [each for each in wanted(topics, topics.profile("dev"), "unused") if each.name in names]
        await ensure({"bootstrap_servers": kafka}, made)
        await written(kafka)
        made_wheel = await asyncio.to_thread(wheel, folder)
        python = await asyncio.to_thread(installed, made_wheel, folder / "venv")
        yield Guide(kafka, made_wheel, python)


async def written(kafka: str) -> None:
    """Write one record of each topic, and one that cannot be read."""
    values: list[tuple[str, str, Any]] = [
        ("contacts.enriched", KEY, CONTACT),
        ("activity.enriched", KEY, ACTIVITY),
        ("users.tags", "acme:t", TAG),
        ("activity.enriched", "zzz:m:1", b"{"),
    ]
    codec = Codec(load(), 2)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for topic, key, value in values:
            cause = Event(topic="", key=key, value=None, id="f1", received_at=time.time_ns() // 1_000_000)
            headers = (("ce_type", "activity.enriched.v1"),) if value == b"{" else ()
            emit = Emit(topic, key, value, occurred_at=AT, headers=headers)
            (output,) = codec.encode(emit, cause, "enrich", 0)
            place = {"partition": output.partition, "timestamp_ms": output.timestamp}
            await producer.send_and_wait(topic, output.value, output.key, **place, headers=output.headers)


async def test_every_program_is_tried() -> None:
    """None of the guide's programs is forgotten here."""
    assert len(snippets()) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
async def test_a_program_of_the_guide_prints_what_it_says(guide: Guide, tmp_path: Path, number: int) -> None:
    """With the base install alone, each program of the guide runs as it stands there."""
    group = f"t{uuid.uuid4().hex}"
    await created(guide.kafka, f"{group}.seen")
    file = tmp_path / "program.py"
    file.write_text(snippets()[number].replace("my-team", group))
    program = await asyncio.create_subprocess_exec(
        str(guide.python),
        str(file),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": guide.kafka},
    )
    try:
        assert PRINTED[number] in (await printed_until(program, PRINTED[number]))[-1]
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def created(kafka: str, topic: str) -> None:
    """Make *topic*, as the team that writes to it does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


def printed(python: Path, code: str, folder: Path) -> set[str]:
    """The words that *code* prints."""
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return {*done.stdout.split()}


async def test_subscribing_imports_no_stage_runtime(guide: Guide, tmp_path: Path) -> None:
    """Neither the runtime nor what it needs is imported, nor is it there to be."""
    modules = "import sys, pipeline.subscribe; print(*sys.modules)"
    imported = await asyncio.to_thread(printed, guide.python, modules, tmp_path)
    names = "from importlib.metadata import distributions; print(*(d.name for d in distributions()))"
    there = await asyncio.to_thread(printed, guide.python, names, tmp_path)
    assert "pipeline.subscribe" in imported
    assert [name for name in imported if name.startswith(RUNTIME)] == []
    assert not {"rocksdict", "aiohttp", "pydantic-settings", "phonenumbers"} & there


async def test_a_first_record_is_there_in_a_minute(guide: Guide, tmp_path: Path) -> None:
    """From nothing, with pip and the first program, a subscriber has a record within 60 s."""
    figures = await asyncio.to_thread(measured, guide.kafka, guide.wheel, tmp_path)
    print("from nothing to a first record:", figures)  # noqa: T201 - the figure is asked for
    assert figures["together_s"] < 60
