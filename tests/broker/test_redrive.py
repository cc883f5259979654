"""Dead letters back to their stage: each once, whatever dies; and what becomes of those that fail again."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from pipeline.codec import Places, text_headers
from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime import audit, decisions
from pipeline.runtime.dead_letters import history
from pipeline.runtime.jobs import job_producer
from pipeline.runtime.letters import DISCARDED, deciding, lock
from pipeline.runtime.overtaken import overtaken
from tests.broker.letters_world import PAGE, LettersWorld, killed_in, put_letters
from tests.broker.runtime_world import PARTITIONS, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = tuple(f"k{number % 7}" for number in range(5 * PAGE))


async def refused(world: LettersWorld, *texts: str) -> None:
    """Let the world's stage meet *texts*, of which it refuses ``bad`` and ``worse``."""
    world.bad |= {"bad", "worse"}
    await world.send(*(("k", text) for text in texts))


async def filled(kafka: str, folder: Path) -> LettersWorld:
    """A world without a stage that has as many letters as `KEYS`."""
    world = LettersWorld(kafka, folder)
    await world.prepare(world.stage())
    await world.dead(*KEYS)
    return world


async def letters_put_back(world: LettersWorld) -> Counter[str]:
    """How often each letter stands on the stage's redrive topic."""
    return Counter(text_headers(record.headers)["dl_letter"] for record in await world.put_back())


async def test_a_record_that_is_redriven_is_processed(kafka: str, tmp_path: Path) -> None:
    """Mended, the stage takes it as if it came now; it is open no more and no second letter comes of it."""
    world = LettersWorld(kafka, tmp_path)
    stage = world.stage(world.refusing)
    await world.prepare(stage)
    await refused(world, "a", "bad", "c")
    async with running(world, stage):
        await world.open(at_least=1)
        world.bad.clear()
        await world.begun(world.id)
        job = await world.run(world.id)
        assert await world.told(at_least=3) == ["a#1", "c#2", "bad#3"]
    assert (job.state, job.done, job.total) == ("done", 1, 1)
    assert (await world.open(), len(await world.dead_letters())) == ([], 1)


async def test_a_record_that_fails_again_remembers_its_attempts(kafka: str, tmp_path: Path) -> None:
    """A letter of the second attempt is open in place of the first; it tells of both, and of the operator."""
    world = LettersWorld(kafka, tmp_path)
    stage = world.stage(world.refusing)
    await world.prepare(stage)
    await refused(world, "bad")
    async with running(world, stage):
        (first,) = await world.open(at_least=1)
        await world.begun(world.id)
        await world.run(world.id)
        await world.dead_letters(at_least=2)
        (second,) = await world.open(at_least=1)
    (attempt,) = history(second.headers)
    assert (second.attempts, second.timestamp, second.origin_offset) == (2, first.timestamp, 0)
    assert (attempt.letter, attempt.reason, attempt.by, attempt.redrive) == (first.id, "bad", "ada", world.id)


@pytest.mark.parametrize(
    ("step", "call"), [("commit_transaction", 3), ("+commit_transaction", 3), ("+send_batch", 8)]
)
async def test_a_killed_redrive_goes_on_without_doubling(
    kafka: str, tmp_path: Path, step: str, call: int
) -> None:
    """Killed with -9 around a commit and begun again, each letter was put back exactly once, in order."""
    world = await filled(kafka, tmp_path)
    await world.begun(world.id)
    await killed_in(world, world.id, step, call)
    assert 0 < len(await world.put_back()) < len(KEYS)
    job = await world.run(world.id)
    letters = await letters_put_back(world)
    assert (job.state, job.done) == ("done", len(KEYS))
    assert (len(letters), set(letters.values())) == (len(KEYS), {1})
    places = [int(text_headers(r.headers)["dl_offset"]) for r in await world.put_back() if r.partition == 0]
    assert places == sorted(places)


async def test_the_same_redrive_twice_adds_nothing(kafka: str, tmp_path: Path) -> None:
    """Neither the same name again nor another one puts a letter back a second time."""
    world = await filled(kafka, tmp_path)
    await world.begun(world.id)
    await world.run(world.id)
    assert (await world.run(world.id)).state == "done"
    await world.begun(f"{world.id}-other")
    assert (await world.run(f"{world.id}-other")).done == 0
    assert set((await letters_put_back(world)).values()) == {1}


async def test_a_redrive_whose_record_was_lost_adds_nothing(kafka: str, tmp_path: Path) -> None:
    """What was put back is known by the audit: two who create the same redrive at once do no harm."""
    world = await filled(kafka, tmp_path)
    begun = await world.begun(world.id)
    await world.run(world.id)
    await world.kept(lambda jobs: jobs.create(begun))
    assert (await world.run(world.id)).done == len(KEYS)
    assert set((await letters_put_back(world)).values()) == {1}


async def test_a_second_redrive_fences_the_first(kafka: str, tmp_path: Path) -> None:
    """While one runs, another one's start ends it: two never put the same letters back."""
    world = await filled(kafka, tmp_path)
    one, other = f"{world.id}-1", f"{world.id}-2"
    await world.begun(one)
    await world.begun(other)
    async with job_producer(world.connection, world.codec, one, lock=lock()) as first:
        await world.run(other)
        with pytest.raises(BrokerError):
            await first.commit({}, first.job)
    assert set((await letters_put_back(world)).values()) == {1}


async def test_a_stopped_redrive_is_paused_and_goes_on(kafka: str, tmp_path: Path) -> None:
    """Ctrl-C ends it behind a page, paused; running it again does the rest."""
    world = await filled(kafka, tmp_path)
    await world.begun(world.id)
    stop = asyncio.Event()
    stop.set()
    job = await world.run(world.id, PAGE, stop)
    assert (job.state, job.done, len(await world.put_back())) == ("paused", PAGE, PAGE)
    assert (await world.run(world.id)).state == "done"
    assert set((await letters_put_back(world)).values()) == {1}


async def test_a_limit_leaves_the_rest_open(kafka: str, tmp_path: Path) -> None:
    """The plan takes as many as the limit says, the redrive no more, and the rest stays open."""
    world = await filled(kafka, tmp_path)
    plan = await world.plan(limit=30)
    await world.begun(world.id, limit=30)
    job = await world.run(world.id)
    assert (plan.matching, plan.taken, job.done) == (len(KEYS), 30, 30)
    assert [(group.reason, group.count) for group in plan.groups] == [("bad", 30)]
    assert len(await world.open()) == len(KEYS) - 30


async def test_large_letters_make_small_pages(kafka: str, tmp_path: Path) -> None:
    """A transaction is bounded by bytes as well: letters of 700 kB do not go in hundreds."""
    world = LettersWorld(kafka, tmp_path)
    await world.prepare(world.stage())
    await put_letters(kafka, PARTITIONS, world.name, world.input, ["k"] * 8, value=b"x" * 700_000)
    await world.begun(world.id)
    await world.run(world.id)
    pages = [len(e.what) for e in await audit.recorded(world.connection) if e.job == world.id]
    assert pages == [6, 2]


async def test_an_edited_value_is_what_is_put_back(kafka: str, tmp_path: Path) -> None:
    """The stage gets the operator's value under the same key; the letter itself keeps the one it had."""
    world = LettersWorld(kafka, tmp_path)
    stage = world.stage(world.refusing)
    await world.prepare(stage)
    await refused(world, "bad")
    async with running(world, stage):
        (letter,) = await world.open(at_least=1)
        await decisions.edit(world.connection, world.codec, letter, b'{"at":"good"}', "ada")
        await world.begun(world.id)
        await world.run(world.id)
        assert await world.told(at_least=1) == ["good#1"]
    (back,) = await world.put_back()
    assert (await world.letters.one(letter.id)).value == b'{"at":"bad"}'
    assert (text_headers(back.headers)["dl_edited"], letter.id in await world.letters.edits()) == (
        "true",
        False,
    )


async def test_what_is_discarded_is_recorded_and_closed(kafka: str, tmp_path: Path) -> None:
    """Who, when, why and which stands on audit; a discarded letter can neither be redriven nor edited."""
    world = await filled(kafka, tmp_path)
    letters = await world.open()
    await decisions.discard(world.connection, world.codec, await world.plan(), "ada", "a test's")
    (entry,) = [e for e in await audit.recorded(world.connection) if letters[0].id in e.what]
    assert (entry.action, entry.by, entry.why) == (DISCARDED, "ada", "a test's")
    assert set(entry.what) == {letter.id for letter in letters}
    assert (await world.open(), (await world.plan()).taken) == ([], 0)
    with pytest.raises(ConfigError, match="open no more"):
        await decisions.edit(world.connection, world.codec, letters[0], b"{}", "ada")


async def test_an_open_transaction_hides_no_decision(kafka: str, tmp_path: Path) -> None:
    """Decisions behind somebody's open transaction are waited for: else they would be made twice."""
    world = await filled(kafka, tmp_path)
    other = world.connection.producer(f"{world.id}.other")
    await other.start()
    try:
        await other.begin_transaction()
        await other.send_and_wait(audit.TOPIC, b"{}", b"", partition=0)
        reading = asyncio.create_task(decided_by_another(world))
        done, _ = await asyncio.wait({reading}, timeout=1.0)
        assert not done
        await other.abort_transaction()
        assert await reading == {"9-1"}
    finally:
        await other.stop()


async def decided_by_another(world: LettersWorld) -> set[str]:
    """What an operator of the name of *world* has decided, once he has decided of ``9-1``."""
    places: Places = {}
    audit.add(world.codec, places, audit.entry(DISCARDED, world.id, ("9-1",), "a test's"))
    async with deciding(world.connection, world.codec) as producer:
        await producer.commit(places, {})
    found = await audit.recorded(world.connection)
    return {id_ for entry in found if entry.by == world.id for id_ in entry.what}


async def test_the_plan_knows_which_keys_were_overtaken(kafka: str, tmp_path: Path) -> None:
    """A key has been overtaken once a later record of it is committed by the stage, and not before."""
    world = LettersWorld(kafka, tmp_path)
    stage = world.stage(world.refusing)
    await world.prepare(stage)
    world.bad = {"bad"}
    await world.send(("behind", "bad"), ("behind", "good"), ("last", "good"), ("last", "bad"))
    async with running(world, stage):
        await world.open(at_least=2)
        await world.told(at_least=2)
    await world.send(("last", "not processed yet"))
    found = await overtaken(world.connection, world.codec, (await world.plan()).letters)
    assert (found.keys, found.later, found.unknown) == (2, ("behind",), 0)
