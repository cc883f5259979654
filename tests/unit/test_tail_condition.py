"""Conditions in CEL: what they see, how a wrong one is told, and that none can hang whoever holds it."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from pipeline.codec import Record
from pipeline.errors import ConfigError
from pipeline.tail import condition as conditions
from pipeline.tail.condition import MAX_LENGTH, Condition, holding

ALL = list(range(100))
VALUE = {"tenant": "acme", "score": 66.5, "n": 3, "none": None, "tags": [{"name": "VIP"}], "all": ALL}


def record(value: Any = VALUE, *, offset: int = 7, key: bytes | None = b"acme:m:1") -> Record:
    """A record whose value is *value* as JSON."""
    body = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
    headers = (("ce_type", b"x.y.v1"), ("content-type", b"application/json"))
    return Record("a.topic", 1, offset, 1_893_456_000_000, key, body, headers)


async def judged(expression: str, *records: Record) -> tuple[list[Record], Condition]:
    """Those of *records*, by default a usual one, that *expression* holds for; and what judged."""
    async with holding(expression) as condition:
        return await condition.matching(records or [record()]), condition


@pytest.mark.parametrize(
    "expression",
    [
        'value.tenant == "acme" && key.startsWith("acme:")',
        "value.score > 50 && value.n >= 2.5",
        "has(value.tenant) && !has(value.nope)",
        "value.none == null",
        'value.tags.exists(tag, tag.name == "VIP")',
        'headers.ce_type == "x.y.v1" && headers["content-type"].endsWith("json")',
        'topic == "a.topic" && partition == 1 && offset > 6',
        'timestamp >= timestamp("2030-01-01T00:00:00Z")',
        'timestamp - duration("1h") < timestamp("2030-01-01T00:00:00Z")',
        'key.matches("^acme:m:[0-9]$")',
        "value.nope == 1 || true",
    ],
)
async def test_a_condition_that_holds_keeps_the_record(expression: str) -> None:
    """Key, value, headers and place are there under their names; the negation drops it."""
    assert len((await judged(expression))[0]) == 1
    assert (await judged(f"!({expression})"))[0] == []


@pytest.mark.parametrize(
    ("value", "expression"),
    [(None, "value == null"), (b"no JSON", 'value == "no JSON"'), (b"\xff", "size(value) == 1")],
)
async def test_a_value_that_is_no_json_can_be_judged(value: bytes | None, expression: str) -> None:
    """A tombstone is null, other bytes are text."""
    assert len((await judged(expression, record(value)))[0]) == 1


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        (
            'value.tenant = "x"',
            "column 14: Syntax error: token recognition error at: '= '\n    value.tenant = \"x\"",
        ),
        ("true &&\n  nope == 1", "line 2, column 3: undeclared reference to 'nope'"),
        ("key + 1 == 2", "column 5: found no matching overload for '_+_'"),
        ("value.tags.all(t", "column 17: Syntax error: missing ')'"),
        ("size(value)", "it gives INT, not true or false"),
        ("", "Syntax error"),
        ("x" * (MAX_LENGTH + 1), f"{MAX_LENGTH + 1} characters; allowed: up to {MAX_LENGTH}"),
        ("(" * 500 + "true" + ")" * 500, "recursion limit exceeded"),
        ("[" * 2_000, "recursion limit exceeded"),
    ],
)
async def test_a_wrong_condition_is_told_with_its_place(expression: str, told: str) -> None:
    """It is refused before any record is read."""
    with pytest.raises(ConfigError, match=r"^--where: ") as refused:
        await judged(expression)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("value.nope == 1", 'Key not found in map : "nope"'),
        ("value.tags[5].name == 'x'", "Index error"),
        ("value.tenant", "it gives STRING, not true or false"),
        ('key.matches("(")', "invalid regular expression"),
        ("value.all.all(a, value.all.all(b, value.all.all(c, true)))", "Iteration budget exceeded"),
        ("value.all.map(a, value.all.map(b, value.all.map(c, a))).size() > 0", "Iteration budget exceeded"),
    ],
)
async def test_what_cannot_be_decided_is_left_out_and_counted(expression: str, why: str) -> None:
    """The first one is told with its place and the reason; the others go on."""
    found, condition = await judged(expression, record(), record(offset=8))
    assert found == []
    assert (condition.undecided.count, condition.undecided.first) == (2, "1:7")
    assert why in condition.undecided.why


@pytest.mark.parametrize(
    ("expression", "text"),
    [('value.matches("(a+)+$")', "a" * 100_000 + "!"), ('value.matches("(a|a)*(a|a)*b")', "a" * 500_000)],
)
async def test_no_regular_expression_backtracks(expression: str, text: str) -> None:
    """What takes other engines for ever is done in linear time."""
    begun = time.monotonic()
    assert (await judged(expression, record(text)))[0] == []
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("value.many.all(a, value.text.matches('(a|b)*c') || true)", "took too long"),
        ("value.many.map(a, value.text + value.text).size() > 0", "needs too much memory"),
    ],
)
async def test_a_condition_that_takes_too_much_is_ended(expression: str, why: str) -> None:
    """The kernel ends the process inside of the library; what is told names the record."""
    large = {"many": list(range(9_000)), "text": "a" * 500_000}
    with pytest.raises(ConfigError, match=rf"^--where: it {why} at 1:7, and was ended"):
        await judged(expression, record(large))


async def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting has an end as well: frozen, it is given up."""
    monkeypatch.setattr(conditions, "BATCH_S", 0.3)
    async with holding("true") as condition:
        condition._process.send_signal(19)
        with pytest.raises(ConfigError, match="took too long"):
            await condition.matching([record()])


async def test_all_of_a_long_sequence_are_judged_in_order() -> None:
    """Batches are cut by count and by bytes; none is lost or doubled at their edges."""
    many = [record({"n": n, "pad": "x" * (2_000 if n % 7 else 600_000)}, offset=n) for n in range(1_300)]
    found, _ = await judged("value.n % 3 == 0", *many)
    assert [each.offset for each in found] == list(range(0, 1_300, 3))


async def test_the_process_is_gone_afterwards() -> None:
    """Leaving the block ends it, also by an error."""
    with pytest.raises(RuntimeError):
        async with asyncio.timeout(30), holding("true") as condition:
            raise RuntimeError
    assert condition._process.returncode is not None
