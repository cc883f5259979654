"""`pipeline replay start group` on a real Kafka: a group goes back, and nobody is overrun."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pipeline.errors import ConfigError
from pipeline.instants import from_ms
from pipeline.runtime.jobs import Job, job_producer, new_job
from pipeline.runtime.replay_group import move
from tests.broker.replay_world import FIRST_MS, SECOND_MS, ReplayWorld

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def world(kafka: str) -> AsyncIterator[ReplayWorld]:
    """An application of its own."""
    one = ReplayWorld(kafka)
    yield one
    await one.jobs.close()


async def test_a_group_goes_back_to_a_time(world: ReplayWorld) -> None:
    """The plan says from, to and records; afterwards the group reads from there, and the job is done."""
    await world.prepare(40)
    group = f"{world.id}.enrich"
    async with world.member(group):
        pass
    at = from_ms(FIRST_MS + 10 * SECOND_MS)
    code, told, err = await world.replay("start", "group", group, "--to", at, "--yes")
    assert code == 0, err
    assert (told[0]["moves"][0]["at"], told[0]["moves"][0]["to"], told[0]["records"]) == (20, 5, 30)
    assert await world.committed(group) == {0: 5, 1: 5}
    assert told[-1]["state"] == "done"


async def test_a_group_with_members_is_refused(world: ReplayWorld) -> None:
    """Who is in it and what to do is told; nothing is moved."""
    await world.prepare(10)
    group = f"{world.id}.enrich"
    async with world.member(group):
        code, _, err = await world.replay("start", "group", group, "--to", "earliest", "--yes")
        assert (code, "has members" in err, "stop them" in err) == (2, True, True)
        assert await world.committed(group) == {0: 5, 1: 5}


async def test_a_member_that_comes_after_the_plan_is_not_overrun(world: ReplayWorld) -> None:
    """The move itself is refused by Kafka while anybody is in the group."""
    await world.prepare(10)
    group = f"{world.id}.enrich"
    async with world.member(group):
        job = await _planned(world, group)
        with pytest.raises(ConfigError, match="has members"):
            await _moved(world, job)
    assert await world.committed(group) == {0: 5, 1: 5}


async def test_another_teams_group_needs_their_consent(world: ReplayWorld) -> None:
    """Without it the group is refused; who agreed is kept in the job."""
    await world.prepare(10)
    group = f"their-{world.id}"
    async with world.member(group):
        pass
    code, _, err = await world.replay("plan", "group", group, "--to", "earliest")
    assert (code, "--consent" in err) == (2, True)
    words = ("start", "group", group, "--to", "0", "--consent", "Ada of reports", "--yes")
    code, told, err = await world.replay(*words)
    assert code == 0, err
    assert (await world.jobs.get(told[-1]["id"])).spec["consent"] == "Ada of reports"
    assert await world.committed(group) == {0: 0, 1: 0}


async def test_a_move_is_not_made_twice(world: ReplayWorld) -> None:
    """A job killed between the move and its record leaves the group alone that has gone on since."""
    await world.prepare(10)
    group = f"{world.id}.enrich"
    async with world.member(group):
        pass
    job = await _planned(world, group, at=7)
    with pytest.raises(ConfigError, match="has gone on since"):
        await _moved(world, job)
    assert await world.committed(group) == {0: 5, 1: 5}


async def _planned(world: ReplayWorld, group: str, at: int = 5) -> Job:
    moves = [{"topic": world.past, "partition": number, "at": at, "to": 0} for number in (0, 1)]
    return await world.jobs.create(new_job("replay", {"what": "group", "group": group, "moves": moves}))


async def _moved(world: ReplayWorld, job: Job) -> Job:
    async with job_producer(world.connection, world.codec, job.id) as runner, asyncio.timeout(30):
        return await move(world.connection, runner)
