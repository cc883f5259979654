"""Durable jobs on a real Kafka: killed, fenced, paused and cancelled, and nothing lost or doubled."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.jobs import job_producer
from tests.broker.jobs_world import PAGE, JobsWorld, killed_in
from tests.broker.runtime_world import until_it

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOTAL = 5 * PAGE


@pytest_asyncio.fixture(loop_scope="session")
async def world(kafka: str) -> AsyncIterator[JobsWorld]:
    """The jobs of an application of its own."""
    one = JobsWorld(kafka)
    await one.prepare()
    yield one
    await one.jobs.close()


async def test_a_job_runs_to_its_end(world: JobsWorld) -> None:
    """All pages are written in order, and whoever looks sees it done."""
    job = await world.begun(TOTAL)
    assert (await world.jobs.get(job.id)).state == "planned"
    await world.run(job.id)
    found = await world.jobs.get(job.id)
    assert (found.state, found.done, found.wanted) == ("done", TOTAL, "run")
    assert await world.numbers(TOTAL) == list(range(TOTAL))


@pytest.mark.parametrize(
    "step", ["begin_transaction", "send_batch", "commit_transaction", "+commit_transaction"]
)
async def test_a_killed_job_goes_on_where_its_last_transaction_stood(world: JobsWorld, step: str) -> None:
    """Killed with -9 before or behind any step of a page, it writes every number once and in order."""
    job = await world.begun(TOTAL)
    await killed_in(world, job.id, step, 4)
    await _begun(world, job.id, PAGE)
    assert (await world.jobs.get(job.id)).done < TOTAL
    assert (await world.run(job.id)).state == "done"
    assert await world.numbers(TOTAL) == list(range(TOTAL))


async def test_a_second_runner_fences_the_first(world: JobsWorld) -> None:
    """What the first one still writes is refused, and the second goes on behind what it had committed."""
    job = await world.begun(TOTAL)
    async with job_producer(world.connection, world.codec, job.id) as first:
        await world.page(first)
        async with job_producer(world.connection, world.codec, job.id) as second:
            with pytest.raises(BrokerError):
                await world.page(first)
            assert second.job.done == PAGE
            await world.write(second)
    assert await world.numbers(TOTAL) == list(range(TOTAL))


async def test_a_runner_sees_all_of_its_job_behind_another_jobs_open_transaction(world: JobsWorld) -> None:
    """Another job's open transaction hides what came after it; a new runner does not go on without that."""
    mine, other = await world.begun(TOTAL), await world.begun(TOTAL)
    async with job_producer(world.connection, world.codec, mine.id) as first:
        await killed_in(world, other.id, "commit_transaction", 3)
        await world.page(first)
    async with job_producer(world.connection, world.codec, mine.id) as second:
        assert second.job.done == PAGE


@pytest.mark.parametrize(("wish", "state"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_wish_takes_effect_at_the_next_page(world: JobsWorld, wish: str, state: str) -> None:
    """Another client's wish ends the runner in order, with what is written and what is left told."""
    job = await world.begun(1_000_000)
    running = asyncio.create_task(world.run(job.id))
    await _begun(world, job.id, 2 * PAGE)
    await world.jobs.want(job.id, wish)  # type: ignore[arg-type] # by parameter
    async with asyncio.timeout(30):
        ended = await running
    found = await world.jobs.get(job.id)
    assert (found.state, found.wanted, ended.state) == (state, wish, state)
    assert await world.numbers(found.done) == list(range(found.done))


async def test_a_paused_job_goes_on_when_wished(world: JobsWorld) -> None:
    """A wish that came while nobody ran the job holds at the first page; another one takes it back."""
    job = await world.begun(TOTAL)
    await world.jobs.want(job.id, "pause")
    assert (await world.run(job.id)).state == "paused"
    await world.jobs.want(job.id, "run")
    assert (await world.run(job.id)).state == "done"
    assert await world.numbers(TOTAL) == list(range(TOTAL))


async def test_an_unknown_job_is_told(world: JobsWorld) -> None:
    """Neither reader nor runner makes up a job."""
    with pytest.raises(ConfigError, match="unknown job 'nobody'"):
        await world.jobs.get("nobody")
    with pytest.raises(ConfigError, match="unknown job 'nobody'"):
        await world.run("nobody")


async def _begun(world: JobsWorld, id_: str, done: int) -> None:
    async def is_begun() -> bool:
        return (await world.jobs.get(id_)).done >= done

    await until_it(is_begun, f"{done} done")
