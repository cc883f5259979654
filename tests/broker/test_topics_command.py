"""`pipeline topics plan` and `apply` against a real Kafka."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio

from pipeline.cli import main
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import wanted
from pipeline.topics import load
from tests.kafka_fixture import running_kafka

pytestmark = pytest.mark.asyncio(loop_scope="session")

Captured = pytest.CaptureFixture[str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kafka() -> AsyncIterator[str]:
    """A Kafka of its own: the command makes topics of the real names, whatever other tests need of them."""
    async with running_kafka() as servers:
        yield servers


async def run(kafka: str, *words: str) -> int:
    """Run `pipeline topics …` against *kafka* in a thread: it has an event loop of its own."""
    target = ("--bootstrap-servers", kafka, "--profile", "dev", "--json")
    return await asyncio.to_thread(main, ["topics", *words, *target])


async def test_apply_makes_the_plan_clean(
    kafka: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan exits 2 on drift and says what is missing; after apply it exits 0 and finds nothing."""
    application = f"a{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("PIPELINE_APPLICATION_ID", application)
    assert await run(kafka, "plan") == 2
    before = orjson.loads(capsys.readouterr().out)
    assert await run(kafka, "apply", "--yes") == 0
    capsys.readouterr()
    assert await run(kafka, "plan") == 0
    after = orjson.loads(capsys.readouterr().out)
    assert f"{application}.decode.seen.changelog" in {each["topic"] for each in before["differences"]}
    assert (after["clean"], after["differences"]) == (True, [])


async def test_apply_twice_changes_nothing_more(
    kafka: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second apply of the same topics has nothing to do, and exits 0."""
    monkeypatch.setenv("PIPELINE_APPLICATION_ID", f"a{uuid.uuid4().hex[:8]}")
    await run(kafka, "apply", "--yes")
    capsys.readouterr()
    assert await run(kafka, "apply", "--yes") == 0
    assert orjson.loads(capsys.readouterr().out.splitlines()[-1])["create"] == 0


async def test_another_partition_count_is_refused(
    kafka: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger sizes on a cluster that has the small ones: exit code 2, each topic with what to do."""
    monkeypatch.setenv("PIPELINE_APPLICATION_ID", f"a{uuid.uuid4().hex[:8]}")
    topics = load()
    await ensure({"bootstrap_servers": kafka}, wanted(topics, topics.profile("dev"), "unused"))
    words = ["topics", "apply", "--yes", "--bootstrap-servers", kafka, "--profile", "production"]
    assert await asyncio.to_thread(main, words) == 2
    told = capsys.readouterr().err
    assert "pipeline: sakari.events: partitions 2, not 24: another count sends keys" in told
