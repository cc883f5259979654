"""`pipeline dlq` as an operator uses it, against a Kafka of its own with the real topics."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from pipeline.codec import text_headers
from pipeline.runtime.admin import ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import wanted
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.topics import load
from tests.acceptance.programs import ran, started
from tests.broker.letters_world import put_letters
from tests.kafka_fixture import running_kafka

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = b'{"locationId":"l1","phone":"+12025550101","nested":[{"name":"Ada"}]}'


class Operator:
    """Somebody at a terminal, and letters of a reason of their own."""

    def __init__(self, kafka: str, folder: Path, reason: str) -> None:
        self.kafka = kafka
        self.folder = folder
        self.reason = reason
        self.target = ("--bootstrap-servers", kafka, "--profile", "dev", "--json")

    async def says(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """The lines of `pipeline dlq` *words*, which must end with *code*."""
        ended, output, errors = await ran("dlq", *words, *self.target)
        assert ended == code, errors
        return [orjson.loads(line) for line in (output or errors).splitlines()]

    async def reads(self, *words: str) -> list[str]:
        """What `pipeline dlq` *words* prints for people."""
        ended, output, errors = await ran("dlq", *words, *self.target[:-1])
        assert ended == 0, errors
        return output.splitlines()

    async def letters(self) -> list[dict[str, Any]]:
        """The open letters of the operator's reason."""
        (told,) = await self.says("list", "--reason", self.reason)
        found: list[dict[str, Any]] = told["letters"]
        return found

    async def put(
        self, *keys: str, topic: str = "sources.received", value: bytes = BODY, **more: str
    ) -> None:
        """Letters of decode of the operator's reason, each of one of *keys*."""
        headers = {"tenant": "acme", "product": "users", "resource": "webhook", "ce_time": "now", **more}
        await put_letters(self.kafka, 2, "decode", topic, keys, value=value, reason=self.reason, **headers)

    async def put_back(self) -> Counter[str]:
        """How often each letter of the operator's reason stands on ``decode.redrive``."""
        connection = Connection(KafkaSettings(bootstrap_servers=self.kafka), RuntimeSettings())
        async with reading(connection, ("decode.redrive",), 2) as reader:
            told = [text_headers(record.headers) async for record in reader.everything()]
        return Counter(each["dl_letter"] for each in told if each["dl_reason"] == self.reason)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_kafka() -> AsyncIterator[str]:
    """A Kafka of its own: the command works with topics of the real names."""
    topics = load()
    async with running_kafka() as servers:
        await ensure({"bootstrap_servers": servers}, wanted(topics, topics.profile("dev"), "pipeline"))
        yield servers


@pytest.fixture
def operator(own_kafka: str, tmp_path: Path, request: pytest.FixtureRequest) -> Operator:
    """An operator with a reason of the test's own."""
    return Operator(own_kafka, tmp_path, request.node.name.replace("_", "-"))


async def test_letters_are_counted_and_filtered(operator: Operator) -> None:
    """A list counts by stage and reason what all filters leave, and shows the newest of it."""
    await operator.put("acme:s:1", "acme:s:2", "acme:s:3")
    (told,) = await operator.says("list", "--reason", operator.reason, "--limit", "2", "--since", "1d")
    assert (told["count"], len(told["letters"])) == (3, 2)
    assert told["counts"] == [{"stage": "decode", "reason": operator.reason, "count": 3}]
    for other in (("--stage", "enrich"), ("--tenant", "bolt"), ("--topic", "users.tags"), ("--until", "1d")):
        (none,) = await operator.says("list", "--reason", operator.reason, *other)
        assert none["count"] == 0


async def test_a_letter_is_shown_masked_unless_asked_for(operator: Operator) -> None:
    """Of what came in raw only the names of fields are shown; --unmask shows all of it."""
    await operator.put("acme:u:1")
    (letter,) = await operator.letters()
    (told,) = await operator.says("show", letter["id"])
    (unmasked,) = await operator.says("show", letter["id"], "--unmask")
    assert told["value"]["json"] == {"locationId": "***", "phone": "***", "nested": [{"name": "***"}]}
    assert unmasked["value"]["json"] == orjson.loads(BODY)
    assert (told["state"], told["topic"], told["offset"], told["tenant"]) == (
        "open",
        "sources.received",
        0,
        "acme",
    )


async def test_people_read_lines(operator: Operator) -> None:
    """Without --json: counts, a row a letter, and of one its attempts and its masked value."""
    attempt = {"letter": "0-9", "attempt": 1, "reason": "first", "error": "e", "redrive": "mended"}
    history = orjson.dumps([{**attempt, "by": "ada", "at": "2030-01-10T12:00:00.250Z"}]).decode()
    await operator.put("acme:u:1", dl_history=history)
    lines = await operator.reads("list", "--reason", operator.reason)
    assert (lines[0], lines[2].split()) == ("1 open", ["decode", operator.reason, "1"])
    id_ = lines[4].split()[0]
    told = await operator.reads("show", id_)
    assert f"reason         {operator.reason}" in told
    assert '  "phone": "***",' in told
    (attempted,) = [line for line in told if line.startswith("attempt ")]
    assert attempted.split()[1:4] == ["1", "0-9", "first:"]
    assert "put back by ada at 2030-01-10T12:00:00.250Z (mended)" in attempted


async def test_an_edit_that_cannot_be_read_names_the_field(operator: Operator) -> None:
    """A value that its type refuses is not taken: exit code 2, and the field that is to blame."""
    await operator.put("acme:all", topic="clock.ticks", value=b'{"at":"2030-01-01T00:00:00.000Z"}')
    (letter,) = await operator.letters()
    file = operator.folder / "edited.json"
    file.write_bytes(b'{"at":17}')
    (error,) = await operator.says("edit", letter["id"], "--file", str(file), code=2)
    assert "$.at" in error["problems"][0]
    assert (await operator.letters())[0]["edited"] is False


async def test_an_edit_of_a_raw_body_is_tried_out(operator: Operator) -> None:
    """What came in raw must be what its stage can read, or the edit is not taken."""
    await operator.put("acme:u:1")
    (letter,) = await operator.letters()
    file = operator.folder / "edited.json"
    file.write_bytes(b"{no json")
    (error,) = await operator.says("edit", letter["id"], "--file", str(file), code=2)
    assert error["problems"][0].startswith("value: ")


async def test_an_edited_letter_can_be_undone(operator: Operator) -> None:
    """The list says which letters have another value; --undo forgets it."""
    value = b'{"at":"2030-01-01T00:00:00.000Z"}'
    await operator.put("1", topic="clock.ticks", value=b"{}")
    (letter,) = await operator.letters()
    (operator.folder / "edited.json").write_bytes(value)
    await operator.says("edit", letter["id"], "--file", str(operator.folder / "edited.json"), "--by", "ada")
    (told,) = await operator.says("show", letter["id"])
    assert (told["edit"]["by"], told["edit"]["json"]) == ("ada", orjson.loads(value))
    await operator.says("edit", letter["id"], "--undo")
    (told,) = await operator.says("show", letter["id"])
    assert told["edit"] is None


async def test_a_value_is_edited_in_the_operators_editor(operator: Operator) -> None:
    """It is opened as indented JSON, and what the editor left is taken if it can be read."""
    await operator.put("1", topic="clock.ticks", value=b'{"at":7}')
    (letter,) = await operator.letters()
    words = ("dlq", "edit", letter["id"], *operator.target)
    code, _, errors = await ran(*words, variables={"EDITOR": "sed -i s/7/8/"})
    assert (code, "$.at" in errors) == (2, True)
    code, _, errors = await ran(*words, variables={"EDITOR": """sed -i 's/"at": 7/"at": "x"/'"""})
    assert code == 0, errors
    (told,) = await operator.says("show", letter["id"])
    assert told["edit"]["json"] == {"at": "x"}


async def test_a_dry_run_changes_nothing(operator: Operator) -> None:
    """The plan says how many would go where; without agreement nothing does."""
    await operator.put("acme:u:1", "acme:u:2")
    (plan,) = await operator.says("redrive", "--reason", operator.reason, "--dry-run", "--limit", "1")
    assert (plan["matching"], plan["taken"], plan["order"]["keys"]) == (2, 1, 1)
    await operator.says("redrive", "--reason", operator.reason, code=2)
    assert (await operator.put_back(), len(await operator.letters())) == (Counter(), 2)


async def test_the_same_id_is_the_same_redrive(operator: Operator) -> None:
    """Repeated it adds nothing and is done; with other filters it is refused."""
    await operator.put("acme:u:1", "acme:u:2")
    words = ("redrive", "--reason", operator.reason, "--id", operator.reason, "--yes")
    assert (await operator.says(*words))[-1]["state"] == "done"
    assert [line["state"] for line in await operator.says(*words)] == ["done"]
    assert set((await operator.put_back()).values()) == {1}
    (error,) = await operator.says("redrive", "--stage", "enrich", "--id", operator.reason, code=2)
    assert "another redrive" in error["problems"][0]


async def test_a_killed_command_goes_on(operator: Operator) -> None:
    """Kill -9 in the middle, and the same command again: every letter once."""
    await operator.put(*(f"acme:u:{number}" for number in range(60)))
    words = ("dlq", "redrive", "--reason", operator.reason, "--id", operator.reason, "--rate", "15", "--yes")
    async with started(*words, *operator.target, log=operator.folder / "log") as program:
        await program.line("progress")
        program.signal(signal.SIGKILL)
        await program.ended()
    assert 0 < len(await operator.put_back()) < 60
    last = (await operator.says("redrive", "--id", operator.reason, "--rate", "1000"))[-1]
    assert (last["state"], last["done"]) == ("done", 60)
    letters = await operator.put_back()
    assert (len(letters), set(letters.values())) == (60, {1})


async def test_ctrl_c_pauses_and_cancel_ends(operator: Operator) -> None:
    """The first signal ends it behind a page with code 3; a cancelled one puts nothing more back."""
    await operator.put(*(f"acme:u:{number}" for number in range(20)))
    words = ("dlq", "redrive", "--reason", operator.reason, "--id", operator.reason, "--rate", "2", "--yes")
    async with started(*words, *operator.target, log=operator.folder / "log") as program:
        await program.line("progress")
        program.signal(signal.SIGINT)
        assert await program.ended() == 3
    (told,) = await operator.says("status", operator.reason)
    assert (told["state"], told["total"]) == ("paused", 20)
    await operator.says("cancel", operator.reason)
    (told,) = await operator.says("resume", operator.reason, code=3)
    assert (told["state"], len(await operator.put_back())) == ("cancelled", told["done"])


async def test_another_terminal_pauses_it(operator: Operator) -> None:
    """`pause` ends whoever runs it behind a page; meanwhile nobody else may decide; `resume` goes on."""
    await operator.put(*(f"acme:u:{number}" for number in range(20)))
    words = ("dlq", "redrive", "--reason", operator.reason, "--id", operator.reason, "--rate", "2", "--yes")
    async with started(*words, *operator.target, log=operator.folder / "log") as program:
        await program.line("progress")
        (error,) = await operator.says("discard", "--reason", operator.reason, "--why", "so", "--yes", code=2)
        assert "is running" in error["problems"][0]
        await operator.says("pause", operator.reason)
        assert await program.ended() == 3
    last = (await operator.says("resume", operator.reason, "--rate", "1000"))[-1]
    assert (last["state"], last["done"]) == ("done", 20)


async def test_discarded_letters_say_who_and_why(operator: Operator) -> None:
    """They are open no more, and `show` tells by whom, when and why."""
    await operator.put("acme:u:1")
    (letter,) = await operator.letters()
    await operator.says("discard", letter["id"], "--why", "a test's", "--by", "ada", "--yes")
    (told,) = await operator.says("show", letter["id"])
    assert (told["state"], told["decided_by"], told["why"]) == ("discarded", "ada", "a test's")
    assert await operator.letters() == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("redrive", "--yes"), "say which letters"),
        (("discard", "--why", "so"), "say which letters"),
        (("discard", "--all", "--why", " "), "--why: is empty"),
        (("show", "7"), "'7' is none"),
        (("show", "0-999999"), "no dead letter '0-999999'"),
        (("list", "--since", "soon"), "--since: 'soon' is no time"),
        (("cancel", "unheard-of"), "unknown job 'unheard-of'"),
        (("redrive", "--id", "no/name"), "--id: 'no/name'"),
    ],
)
async def test_a_mistake_is_told(operator: Operator, words: tuple[str, ...], told: str) -> None:
    """What cannot be done ends with exit code 2 and says what to do."""
    (error,) = await operator.says(*words, code=2)
    assert told in error["problems"][0]
