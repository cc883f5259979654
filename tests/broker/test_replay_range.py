"""`pipeline replay start range` on a real Kafka: what is copied, once, in order, and resumed."""

import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pipeline.codec import text_headers
from pipeline.instants import from_ms
from tests.broker.replay_world import FIRST_MS, SECOND_MS, ReplayWorld
from tests.broker.runtime_world import until_it

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def world(kafka: str) -> AsyncIterator[ReplayWorld]:
    """An application of its own."""
    one = ReplayWorld(kafka)
    yield one
    await one.jobs.close()


async def test_a_copy_is_its_record_with_where_it_is_from(world: ReplayWorld) -> None:
    """Partition, order, key, value, time and headers stay; the job and the origin are added."""
    await world.prepare(20)
    code, told, err = await world.replay("start", "range", world.past, "--since", "earliest", "--yes")
    assert code == 0, err
    id_ = told[-1]["id"]
    copies = await world.records(f"replay.{id_}.{world.past}")
    origins = await world.records(world.past)
    assert [each[1:2] + each[3:6] for each in copies] == [each[1:2] + each[3:6] for each in origins]
    assert text_headers(copies[3].headers) == {
        **text_headers(origins[3].headers),
        "replay": id_,
        "replay_topic": world.past,
        "replay_partition": "0",
        "replay_offset": "3",
    }


async def test_a_killed_copy_goes_on_without_gap_or_double(world: ReplayWorld) -> None:
    """Killed with -9 in the middle and resumed, the side topic has each record once, in its order."""
    await world.prepare(1_000)
    words = ("start", "range", world.past, "--since", "earliest", "--rate", "150", "--yes")

    async def is_begun() -> bool:
        job = await world.only_job()
        return job is not None and job.done >= 150

    async with world.begun(*words) as process:
        await until_it(is_begun, "150 records")
        process.send_signal(signal.SIGKILL)
        await process.wait()
    job = await world.only_job()
    assert job is not None
    assert job.done < 1_000
    code, _, err = await world.replay("resume", job.id)
    assert code == 0, err
    copies = await world.records(f"replay.{job.id}.{world.past}")
    assert [each.value for each in copies] == [each.value for each in await world.records(world.past)]


async def test_only_what_is_asked_for_is_copied(world: ReplayWorld) -> None:
    """Times, keys, types and tenant all hold together."""
    await world.prepare(60)
    since, until = (from_ms(FIRST_MS + n * SECOND_MS) for n in (20, 50))
    words = (
        "--since",
        since,
        "--until",
        until,
        "--tenant",
        "t0",
        "--type",
        "a.v1",
        "--to",
        f"{world.id}.side",
    )
    code, _, err = await world.replay("start", "range", world.past, *words, "--yes")
    assert code == 0, err
    copied = sorted(int(each.value or b"") for each in await world.records(f"{world.id}.side"))
    assert copied == [n for n in range(20, 50) if n % 3 == 0 and n % 5]


async def test_what_retention_removed_is_refused_with_what_there_is(world: ReplayWorld) -> None:
    """A time or an offset before the first record that is left is told, with the earliest that exists."""
    await world.prepare(40)
    await world.forget(10)
    asked, exists = from_ms(FIRST_MS + 5 * SECOND_MS), from_ms(FIRST_MS + 21 * SECOND_MS)
    code, _, err = await world.replay("plan", "range", world.past, "--since", asked)
    assert code == 2
    assert f"the earliest time that exists in all partitions is {exists}" in err
    code, _, err = await world.replay("plan", "range", world.past, "--since", "9")
    assert (code, "the earliest that exist are 0: 10, 1: 10" in err) == (2, True)
    code, told, _ = await world.replay("plan", "range", world.past, "--since", exists)
    assert (code, told[0]["begins"], told[0]["records"]) == (0, {"0": 11, "1": 10}, 19)


async def test_a_paused_copy_is_resumed(world: ReplayWorld) -> None:
    """Another process pauses it at a page's end: exit code 3; resumed, it comes to its end."""
    await world.prepare(400)
    words = ("start", "range", world.past, "--since", "earliest", "--rate", "100", "--yes")

    async def is_begun() -> bool:
        job = await world.only_job()
        return job is not None and job.done >= 50

    async with world.begun(*words) as process:
        await until_it(is_begun, "50 records")
        job = await world.only_job()
        assert job is not None
        assert (await world.replay("pause", job.id))[1][0]["state"] == "paused"
        assert await process.wait() == 3
    assert (await world.replay("resume", job.id))[0] == 0
    assert len(await world.records(f"replay.{job.id}.{world.past}")) == 400


async def test_no_existing_topic_is_written_to(world: ReplayWorld) -> None:
    """A side topic is new: neither the contract's topics nor anybody's get copies."""
    await world.prepare(1)
    for target in (world.past, "sakari.events"):
        code, _, err = await world.replay("plan", "range", world.past, "--since", "earliest", "--to", target)
        assert (code, f"there is a topic '{target}' already" in err) == (2, True)
