"""Which dead letters are meant, which can be put back, what they are held against, what is shown of them."""

from typing import Any

import orjson
import pytest

from pipeline.codec import Codec, Record
from pipeline.errors import ConfigError
from pipeline.events.audit import AuditEntry
from pipeline.headers import decoded
from pipeline.instants import Time
from pipeline.runtime.dead_letters import Place, made
from pipeline.runtime.decisions import check_value, obstacle, state_of
from pipeline.runtime.letter_view import shown
from pipeline.runtime.letters import DISCARDED, REDRIVEN, Edit, Letter, Selection, letter_of
from pipeline.stage import Reject
from pipeline.stages import decode
from pipeline.topics import load
from tests.contract.golden_values import written
from tests.unit.decode_records import CONFIG

TOPICS = load()
CODEC = Codec(TOPICS, 2)
DECODE = decode.stage(CONFIG)
RAW = (("tenant", b"acme"), ("product", b"users"), ("resource", b"webhook"))
EDIT = Edit(value=b"{}", by="ada", at=Time("2030-01-10T12:00:00.250Z"))


def letter(
    topic: str = "sources.received", key: bytes | None = b"acme:u:1", value: bytes | None = b"{}", **told: Any
) -> Letter:
    """A letter of *stage* on ``0-3``, which was ``1-7`` of *topic*."""
    headers = told.pop("headers", RAW)
    record = Record(topic, 1, 7, 1_000, key, value, headers)
    place = Place(told.pop("stage", "decode"), topic, told.pop("partition", 1))
    _, (timestamp, _, kept, sent) = made(place, record, Reject("bad", "at: is bad"), 1)
    extra = tuple((name, text.encode()) for name, text in told.items())
    return letter_of(Record("dead-letters", 0, 3, timestamp, key, kept, (*decoded(sent), *extra)))


def entry(action: str) -> AuditEntry:
    """What an operator decided of ``0-3``."""
    return AuditEntry(action=action, by="ada", at=EDIT.at, what=("0-3",))


def test_a_letter_is_called_by_its_place() -> None:
    """Its id never changes, and its provenance is read from its headers."""
    one = letter()
    assert (one.id, one.stage, one.topic, one.origin_partition, one.origin_offset, one.tenant) == (
        *("0-3", "decode", "sources.received", 1, 7),
        "acme",
    )


@pytest.mark.parametrize(
    ("key", "tenant"),
    [(b"acme:m:00", "acme"), (b"bolt|all|1h|2030", "bolt"), (b"acme:m:00|c1", "acme"), (None, "")],
)
def test_the_tenant_is_known_by_the_key(key: bytes | None, tenant: str) -> None:
    """Where no header says it, the key does: all of ours begin with it."""
    assert letter(key=key, headers=()).tenant == tenant


def test_what_somebody_else_wrote_is_a_letter_too() -> None:
    """A record of the topic without our headers can be listed; nothing in it is taken for a number."""
    one = letter_of(Record("dead-letters", 0, 3, 0, None, None, (("dl_attempts", b"many"),)))
    assert (one.stage, one.reason, one.attempts, one.origin_offset) == ("", "", 1, -1)
    assert obstacle(CODEC, one, None) == "no provenance"


@pytest.mark.parametrize(
    "selection",
    [
        Selection(ids=("0-4",)),
        Selection(stage="enrich"),
        Selection(topic="users.tags"),
        Selection(reason="late"),
        Selection(tenant="bolt"),
        Selection(since_ms=1_001),
        Selection(until_ms=1_000),
    ],
)
def test_a_letter_must_be_all_that_is_given(selection: Selection) -> None:
    """Each filter alone leaves out what it does not mean; with all of a letter's own it is meant."""
    assert not selection.takes(letter())
    own = Selection(ids=("0-3",), stage="decode", topic="sources.received", reason="bad", tenant="acme")
    assert own.takes(letter())
    assert Selection(since_ms=1_000, until_ms=1_001).takes(letter())


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (letter(), ""),
        (letter(stage="unheard-of"), "no such stage"),
        (letter(topic="cursors"), "no record of a topic"),
        (letter(partition=2), "no such partition"),
        (letter(value=None, dl_cut_bytes="950000"), "its value was too large to keep; edit it"),
        (letter(topic="users.contacts", value=None), ""),
    ],
)
def test_what_cannot_be_put_back_says_why(one: Letter, why: str) -> None:
    """A letter goes back if its stage and topic exist, and its value was kept; a tombstone has none."""
    assert obstacle(CODEC, one, None) == why


def test_a_cut_letter_goes_back_once_it_has_a_value() -> None:
    """What was too large to keep can be given by an operator."""
    assert obstacle(CODEC, letter(value=None, dl_cut_bytes="950000"), EDIT) == ""


def test_a_decision_is_the_letters_state() -> None:
    """Redriven and discarded are told by what is recorded; without a record it is open."""
    one = letter()
    assert [state_of(one, {}), state_of(one, {"0-3": entry(REDRIVEN)})] == ["open", "redriven"]
    assert state_of(one, {"0-3": entry(DISCARDED), "0-4": entry(REDRIVEN)}) == "discarded"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"{", "value: is no JSON"),
        (b"[]", "value: decode would refuse it"),
        (b'"x"', "value: decode would refuse it"),
        (b" " * 950_000, "value: has 950000 bytes"),
    ],
)
def test_a_raw_value_is_tried_out(value: bytes, told: str) -> None:
    """What came in raw must be JSON, and what its stage takes."""
    sakari = (("tenant", b"acme"), ("product", b"sakari"), ("resource", b"webhook"))
    with pytest.raises(ConfigError, match=told):
        check_value(CODEC, letter(key=b"acme:s:1", headers=sakari), value, DECODE)


def test_a_foreign_tenant_does_not_refuse_an_edit() -> None:
    """An operator's settings may lack a tenant that the pipeline has: that says nothing of the value."""
    foreign = (("tenant", b"unheard-of"), ("product", b"users"), ("resource", b"webhook"))
    check_value(CODEC, letter(key=b"unheard-of:u:1", headers=foreign), b"{}", DECODE)


@pytest.mark.parametrize("name", ["sakari.message.sent.v1", "users.tag.v1", "engagement.metrics.v1"])
def test_a_typed_value_names_the_wrong_field(name: str) -> None:
    """As it was it is taken; with a wrong tenant the error names the field."""
    output = written(name)
    one = letter(output.topic, output.key, output.value, stage="enrich", headers=tuple(output.headers))
    check_value(CODEC, one, output.value or b"", None)
    wrong = orjson.dumps({**orjson.loads(output.value or b""), "tenant": 7})
    with pytest.raises(ConfigError, match=r"\$\.tenant"):
        check_value(CODEC, one, wrong, None)


def test_a_typed_value_is_masked_by_its_type() -> None:
    """What tells of no person is shown, what does is not; unmasked is all of it."""
    output = written("users.contact.v1")
    one = letter(output.topic, output.key, output.value, headers=tuple(output.headers))
    told = shown(TOPICS, one, None, None, unmask=False)["value"]["json"]
    whole = orjson.loads(output.value or b"")
    assert (told["tenant"], told["first_name"]) == (whole["tenant"], "***")
    assert shown(TOPICS, one, None, None, unmask=True)["value"]["json"] == whole


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            b'{"phone":"+12025550101","n":5,"ok":true,"none":null}',
            {"phone": "***", "n": "***", "ok": True, "none": None},
        ),
        (b'{"+12025550101":[{"x":"y"}]}', {"***": [{"x": "***"}]}),
    ],
)
def test_of_a_raw_value_only_names_are_shown(value: bytes, told: dict[str, Any]) -> None:
    """Names of fields are shown where they are names; texts and numbers never."""
    assert shown(TOPICS, letter(value=value), None, None, unmask=False)["value"]["json"] == told


def test_bytes_that_are_no_json_are_not_shown() -> None:
    """Unmasked they are text; masked only their number is told."""
    one = letter(value=b"+12025550101 {")
    masked = shown(TOPICS, one, None, EDIT, unmask=False)
    assert (masked["value"]["text"], masked["value"]["bytes"]) == ("***", 14)
    assert shown(TOPICS, one, None, None, unmask=True)["value"]["text"] == "+12025550101 {"
    assert (masked["edit"]["json"], masked["edit"]["by"]) == ({}, "ada")


def test_what_is_shown_of_a_decision() -> None:
    """State, operator, time and reason stand with the letter."""
    told = shown(TOPICS, letter(), entry(DISCARDED), None, unmask=False)
    assert (told["state"], told["decided_by"], told["decided_at"]) == ("discarded", "ada", EDIT.at)
    assert [name for name in told["headers"] if name.startswith("dl_")] == []
