"""`pipeline tail` on a real Kafka: where it begins and ends, what it leaves out, how it is ended."""

import asyncio
import csv
import io
import signal
import time

import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.runtime.admin import Admin
from pipeline.tail.condition import holding
from tests.broker.tail_world import (
    START_MS,
    follower_of,
    output_of,
    read,
    tailing,
    topic_of,
    until_line,
    written,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_span_of_time_is_what_lies_in_it(kafka: str) -> None:
    """From `since` on, before `until`; a record that is out of order among others is not forgotten."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1, 2, 9, 3, 4, 5])
    async with follower_of(kafka, topic) as follower:
        assert await read(follower, since_ms=START_MS + 2_000, until_ms=START_MS + 5_000) == [2, 3, 4]
        assert await read(follower, since_ms=START_MS) == [1, 2, 9, 3, 4, 5]
        assert await read(follower, since_ms=START_MS + 60_000) == []


async def test_places_say_which_partitions_are_read(kafka: str) -> None:
    """From an offset on, and nothing of the others."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [0, 1, 2])
    await written(kafka, topic, [10, 11, 12], partition=1)
    async with follower_of(kafka, topic) as follower:
        assert await read(follower, offsets={0: 1}) == [1, 2]
        assert sorted(await read(follower, offsets={0: 2, 1: 2})) == [2, 12]
        with pytest.raises(ConfigError) as refused:
            await read(follower, offsets={0: 99, 7: 0})
    assert refused.value.problems == (
        "--from: partition 0 ends at 4, before 99",
        "--from: no partition 7; there are 0 to 1",
    )


@pytest.mark.parametrize(("count", "told"), [(3, [7, 8, 9]), (6, [4, 5, 6, 7, 8, 9]), (500, [*range(10)])])
async def test_the_newest_are_those_of_all_partitions(kafka: str, count: int, told: list[int]) -> None:
    """By their timestamps, whichever partition they are on; fewer where there are fewer."""
    topic = await topic_of(kafka)
    for n in range(10):
        await written(kafka, topic, [n], partition=n % 2)
    async with follower_of(kafka, topic) as follower:
        assert await read(follower, newest=count) == told


async def test_the_newest_that_match_are_searched_for_to_the_beginning(kafka: str) -> None:
    """A condition that few records meet finds them behind hundreds of others, and behind holes."""
    topic = await topic_of(kafka, partitions=1)
    await written(kafka, topic, [1, 3])
    await written(kafka, topic, range(0, 1_500, 2), commit=False)
    await written(kafka, topic, range(0, 1_500, 2))
    async with follower_of(kafka, topic, 1) as follower, holding('value.tenant == "acme"') as condition:
        assert await read(follower, condition, newest=2) == [1, 3]
        assert await read(follower, condition, newest=1) == [3]


async def test_what_was_not_committed_is_not_shown(kafka: str) -> None:
    """Neither of an aborted transaction nor, while it is open, anything behind it."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1])
    await written(kafka, topic, [2], commit=False)
    await written(kafka, topic, [3])
    async with follower_of(kafka, topic) as follower:
        assert await read(follower, since_ms=START_MS) == [1, 3]
        assert await read(follower, newest=9) == [1, 3]


async def test_following_shows_what_comes_and_ctrl_c_ends_it(kafka: str) -> None:
    """Only what comes; the exit code is 0, standard error tells counts and lag, and no group was made."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1])
    async with Admin({"bootstrap_servers": kafka}) as admin:
        before = await admin.groups()
        async with tailing(kafka, topic, "--json") as program:
            line = await until_line(program, bool, lambda: written(kafka, topic, [5]))
            assert await admin.groups() == before
            program.send_signal(signal.SIGINT)
            _, err = await program.communicate()
    assert (orjson.loads(line)["value"]["tag_id"], program.returncode) == ("5", 0)
    assert f"{topic}: " in err.decode()
    assert "shown" in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_reader_that_goes_away_ends_it(kafka: str) -> None:
    """As in `| head`: also while nothing comes, and without a word about it."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1, 2])
    async with tailing(kafka, topic, "-n", "2") as program:
        assert program.stdout is not None
        await program.stdout.readline()
        program.stdout._transport.close()  # type: ignore[attr-defined]
        err = await program.stderr.read() if program.stderr else b""
        await program.wait()
    assert program.returncode == 0
    assert b"Error" not in err


async def test_columns_of_csv_are_masked_and_complete(kafka: str) -> None:
    """Rows as a spreadsheet reads them; what tells of a person is not there until it is asked for."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1, 2], type_="nobody.knows.v1")
    words = (topic, "--no-follow", "--csv", "--columns", "offset,key,value.name,headers.ce_type")
    code, out, _ = await output_of(kafka, *words)
    _, unmasked, _ = await output_of(kafka, *words, "--unmask")
    assert code == 0
    assert list(csv.reader(io.StringIO(out)))[:2] == [
        ["offset", "key", "value.name", "headers.ce_type"],
        ["0", "acme:1", "***", "nobody.knows.v1"],
    ]
    assert next(csv.DictReader(io.StringIO(unmasked)))["value.name"] == "VIP"


async def test_following_ends_by_itself_at_a_time(kafka: str) -> None:
    """With all that was there then, also what came meanwhile."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1])
    async with follower_of(kafka, topic) as follower, asyncio.TaskGroup() as tasks:
        until_ms = int(time.time() * 1_000) + 1_500
        reading = tasks.create_task(read(follower, since_ms=START_MS, until_ms=until_ms, follow=True))
        await written(kafka, topic, [2], partition=1)
    assert reading.result() == [1, 2]
    assert time.time() * 1_000 >= until_ms


async def test_an_unknown_topic_is_refused_with_a_guess(kafka: str) -> None:
    """Exit code 2; nothing is made by asking for it."""
    topic = await topic_of(kafka)
    code, out, err = await output_of(kafka, f"{topic}s")
    assert (code, out) == (2, "")
    assert f"did you mean {topic!r}?" in err


async def test_what_a_condition_could_not_decide_is_told(kafka: str) -> None:
    """The others are shown, and the exit code is 0."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [1, 2])
    where = 'value.tag_id == "2" || value.nope > 1'
    code, out, err = await output_of(kafka, topic, "--no-follow", "--json", "--where", where)
    assert (code, [orjson.loads(line)["offset"] for line in out.splitlines()]) == (0, [1])
    assert "note: --where could not be decided for 1 records left out, first 0:0: Key not found" in err
