"""A fact of a type that came later: readers skip or keep it, and never lose the rest of the record."""

from typing import Any

import orjson
import pytest

from pipeline.codec import Codec, Record, encode
from pipeline.errors import RecordError
from pipeline.events import Fact, with_unknown_fact
from pipeline.instants import Time
from pipeline.topics import load as load_topics
from tests.contract.golden_values import ENRICHED, KEY, NOON

CODEC = Codec(load_topics(), 2)
FACT = {"type": "sakari.message.read.v1", "tenant": "acme", "occurred_at": NOON, "reader": {"deep": [1]}}


def activity(fact: Any, **changes: Any) -> bytes:
    """The JSON of an activity of *fact*."""
    whole = {"tenant": "acme", "contact_key": KEY, "fact_id": "f1", "event": fact} | changes
    return orjson.dumps(whole)


def read(value: bytes, key: str = KEY) -> Any:
    """What a reader gets of *value*."""
    return CODEC.decode(Record("activity.enriched", 0, 0, 1, key.encode(), value)).value


def test_an_unknown_fact_is_kept_with_the_rest_of_its_activity() -> None:
    """Tenant, time, type and JSON of the fact, and the contact, reach an older reader."""
    found = read(activity(FACT, contact=orjson.loads(encode(ENRICHED)), added_later=True))
    assert found.contact == ENRICHED
    assert (found.event.fact_type, found.event.occurred_at) == ("sakari.message.read.v1", Time(NOON))
    assert orjson.loads(found.event.body) == FACT


def test_an_unknown_fact_survives_being_written_and_read() -> None:
    """Whoever copies the activity by its types loses nothing of it."""
    found = read(activity(FACT))
    assert read(encode(found)) == found


@pytest.mark.parametrize(
    "value",
    [
        activity({"type": "sakari.message.sent.v1", "tenant": "acme", "occurred_at": NOON}),
        activity({"type": "later.v1", "tenant": "acme"}),
        activity({"type": "later.v1", "tenant": "acme", "occurred_at": 7}),
        activity({"type": 7, "tenant": "acme", "occurred_at": NOON}),
        activity("later.v1"),
        activity(FACT, contact={"tenant": "acme"}),
        activity(FACT, fact_id=None),
        activity(FACT)[:-1],
        activity(FACT).replace(b"[1]", b"[" * 100_000 + b"]" * 100_000),
        activity(FACT).replace(b'"deep"', b'"\xff"'),
    ],
)
def test_anything_else_that_is_wrong_is_refused_as_before(value: bytes) -> None:
    """Only a fact's unknown type is forgiven: known types, other fields and the JSON itself must fit."""
    with pytest.raises(RecordError) as refused:
        read(value)
    assert refused.value.reason == "invalid-value"


def test_the_key_is_checked_as_ever() -> None:
    """An unknown fact is no way around the tenant's and contact's own key."""
    with pytest.raises(RecordError) as refused:
        read(activity(FACT), "acme:m:other")
    assert refused.value.reason == "wrong-key"


@pytest.mark.parametrize("member", Fact.__args__, ids=lambda member: member.__name__)
def test_a_known_type_is_never_taken_for_an_unknown_one(member: Any) -> None:
    """What the union names is read by its own type or refused."""
    assert with_unknown_fact(activity(FACT | {"type": member.__struct_config__.tag})) is None
