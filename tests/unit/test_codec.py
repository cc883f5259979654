"""The codec: records in, events out, and each bad record refused by its own reason."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import MAX_RECORD_BYTES, Codec, Record, new_traceparent, text_headers
from pipeline.errors import RecordError
from pipeline.events import TYPES, ContactOptedOut, EnrichedContact, LocationTag, Tick
from pipeline.headers import encoded
from pipeline.instants import Time
from pipeline.partitioning import partition_of
from pipeline.stage import Emit, Event
from pipeline.topics import Topics
from pipeline.topics import load as load_topics

CODEC = Codec(load_topics(), 4, "test")
NOON = Time("2030-01-10T12:00:00.000Z")
KEY = "acme:m:00112233445566778899aabbccddeeff"
TRACE = new_traceparent(b"test")
CAUSE: Event[None] = Event(
    topic="", key="", value=None, id="cause", received_at=1_893_456_000_000, traceparent=TRACE
)
FACT = ContactOptedOut(tenant="acme", account_id="a", occurred_at=NOON, contact_id="c1")
TAG = LocationTag(tenant="acme", location_id="l", tag_id="1", name="VIP")


def written(emit: Emit, cause: Event[Any] = CAUSE, stage: str = "stage", index: int = 0) -> Record:
    """The first record that *emit* amounts to."""
    output = CODEC.encode(emit, cause, stage, index)[0]
    return Record(output.topic, output.partition, 0, *output[2:5], tuple(output.headers))


def ce_id(record: Record) -> str:
    """The ``ce_id`` of *record*."""
    return text_headers(record.headers)["ce_id"]


def refused(record: Record) -> str:
    """Why *record* cannot be decoded."""
    with pytest.raises(RecordError) as caught:
        CODEC.decode(record)
    return caught.value.reason


class TestEncoding:
    """What is written."""

    def test_an_event_survives_the_round_trip(self) -> None:
        """Value, key, id, times, trace and mark come back."""
        cause = Event[None](
            topic="", key="", value=None, id="c", received_at=7, traceparent=TRACE, backfill=True
        )
        event = CODEC.decode(written(Emit("sakari.events", KEY, FACT, "fact-1", NOON), cause))
        assert (event.value, event.key, event.id, event.type) == (
            FACT,
            KEY,
            "fact-1",
            "sakari.contact.opted-out.v1",
        )
        assert (event.received_at, event.occurred_at, event.traceparent) == (7, NOON, TRACE)
        assert event.backfill

    def test_a_table_records_id_follows_from_key_and_content(self) -> None:
        """Whoever writes the same value again writes the same id; another value has another."""
        one, again = (
            written(Emit("users.tags", "acme:1", TAG), stage=s, index=i) for s, i in (("a", 0), ("b", 9))
        )
        gone = written(Emit("users.tags", "acme:1", None))
        assert ce_id(one) == ce_id(again) != ce_id(gone)

    def test_an_events_id_follows_from_its_cause_and_place(self) -> None:
        """A repeated step writes the same ids; two outputs of one step differ."""
        emit = Emit("sakari.events", KEY, FACT)
        assert ce_id(written(emit)) == ce_id(written(emit)) != ce_id(written(emit, index=1))

    def test_internal_topics_carry_only_what_they_need(self) -> None:
        """No CloudEvents there, and no trace where none was begun."""
        record = written(Emit("clock.ticks", "1", Tick(NOON)), Event(topic="", key="", value=None))
        assert record.headers == ()

    def test_headers_of_an_emit_replace_those_of_the_codec(self) -> None:
        """A name never stands twice."""
        emit = Emit(
            "sources.received", "acme:s:c1", b"{}", headers=(("ce_source", "/mine"), ("tenant", "acme"))
        )
        names = [name for name, _ in written(emit).headers]
        assert len(names) == len(set(names))
        assert text_headers(written(emit).headers)["ce_source"] == "/mine"

    def test_a_record_of_the_most_bytes_is_written_and_a_larger_one_refused(self) -> None:
        """Before it is appended: a broker's refusal would poison the producer."""
        emit = Emit("sources.received", "acme:s:c1", b"")
        own = len(encoded(written(emit).headers)) + len("acme:s:c1")
        most = Emit("sources.received", "acme:s:c1", b"x" * (MAX_RECORD_BYTES - own))
        assert len(written(most).value or b"") == MAX_RECORD_BYTES - own
        with pytest.raises(RecordError, match="at most 921600"):
            written(Emit("sources.received", "acme:s:c1", b"x" * (MAX_RECORD_BYTES - own + 1)))

    @pytest.mark.parametrize(
        ("topic", "key", "value", "partitions"),
        [
            ("sakari.events", KEY, FACT, [partition_of(KEY.encode(), 4)]),
            ("sakari.contacts", f"{KEY}|c1", None, [partition_of(KEY.encode(), 4)]),
            ("clock.ticks", "3", Tick(NOON), [3]),
            ("users.tags.by-partition", "acme:1", TAG, [0, 1, 2, 3]),
            ("tokens", "acme|l", None, [0]),
        ],
    )
    def test_a_record_goes_where_its_topic_says(
        self, topic: str, key: str, value: Any, partitions: list[int]
    ) -> None:
        """By the whole key, by its prefix, explicitly, to every partition."""
        assert [
            output.partition for output in CODEC.encode(Emit(topic, key, value), CAUSE, "s", 0)
        ] == partitions

    def test_a_traceparent_follows_from_its_seed(self) -> None:
        """A repeat has the same trace."""
        assert new_traceparent(b"a") == new_traceparent(b"a") != new_traceparent(b"b")


class TestBadRecords:
    """What cannot be decoded, and why."""

    GOOD = written(Emit("sakari.events", KEY, FACT))

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "null"),
            (b"", "invalid-value"),
            (b"not json", "invalid-value"),
            (b"[]", "invalid-value"),
            (b"{}", "invalid-value"),
            (b"\xff", "invalid-value"),
            (b'{"a":NaN}', "invalid-value"),
            (b'{"type":"sakari.contact.opted-in.v1"}', "invalid-value"),
            (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid-value"),
        ],
    )
    def test_a_value_that_does_not_fit_is_refused(self, value: bytes | None, reason: str) -> None:
        """Null, no JSON, wrong types, other types, deep nesting."""
        assert refused(self.GOOD._replace(value=value)) == reason

    @pytest.mark.parametrize("name", ["", "sakari.message.sent.v2", "users.tag.v1", "raw"])
    def test_a_type_that_may_not_stand_there_is_refused(self, name: str) -> None:
        """Unknown ones, and those of other topics."""
        headers = tuple((n, t) for n, t in self.GOOD.headers if n != "ce_type")
        assert refused(self.GOOD._replace(headers=(*headers, ("ce_type", name.encode())))) == "unknown-type"

    @pytest.mark.parametrize(
        ("key", "reason"),
        [(None, "no-key"), (b"\xff", "wrong-key"), (b"bolt:m:1", "wrong-key"), (b"acme", "wrong-key")],
    )
    def test_a_wrong_key_is_refused(self, key: bytes | None, reason: str) -> None:
        """None, no text, another tenant's."""
        assert refused(self.GOOD._replace(key=key)) == reason

    def test_a_foreign_contact_key_is_refused(self) -> None:
        """The key that a stage finds its state by is the value's own."""
        contact = EnrichedContact(tenant="acme", contact_key=KEY)
        good = written(Emit("contacts.enriched", KEY, contact))
        assert CODEC.decode(good).value == contact
        assert refused(good._replace(key=b"acme:m:other")) == "wrong-key"

    def test_a_tombstone_is_none_on_a_table(self) -> None:
        """And has the topic's type."""
        event = CODEC.decode(written(Emit("users.tags", "acme:1", None)))
        assert (event.value, event.type) == (None, "users.tag.v1")

    @given(
        st.binary(max_size=200),
        st.lists(st.tuples(st.sampled_from(["ce_type", "backfill", "x"]), st.binary(max_size=9))),
    )
    def test_any_bytes_are_an_event_or_a_record_error(
        self, value: bytes, headers: list[tuple[str, bytes]]
    ) -> None:
        """Nothing else is raised."""
        reason = ""
        try:
            CODEC.decode(Record("sakari.events", 0, 0, 1, KEY.encode(), value, tuple(headers)))
        except RecordError as error:
            reason = error.reason
        assert reason in {"", "invalid-value", "unknown-type"}


class TestReceived:
    """Raw records."""

    def received(self, **headers: str) -> Event[Any]:
        """A raw record with *headers*, decoded."""
        told = tuple((name, text.encode()) for name, text in headers.items())
        return CODEC.decode(Record("sources.received", 0, 5, 9, b"acme:s:c1", b"\xff raw", told))

    def test_headers_become_fields_and_the_body_stays_as_it_is(self) -> None:
        """Also where it is no text."""
        value = self.received(
            source="poll", product="users", resource="tags", tenant="acme", verified="true", change="removed"
        ).value
        assert (value.body, value.source, value.product, value.resource) == (
            b"\xff raw",
            "poll",
            "users",
            "tags",
        )
        assert (value.tenant, value.verified, value.change) == ("acme", True, "removed")

    def test_without_headers_nothing_is_assumed(self) -> None:
        """No tenant, not verified; the place in the log is the id."""
        event = self.received()
        assert (event.value.tenant, event.value.verified) == ("-", False)
        assert (event.id, event.backfill) == ("sources.received/0/5", False)

    @pytest.mark.parametrize(("text", "marked"), [("true", True), ("false", False), ("", False)])
    def test_only_true_marks_a_backfill(self, text: str, marked: bool) -> None:
        """The header says so, its presence does not."""
        assert self.received(backfill=text).backfill is marked

    def test_the_start_of_a_scan_is_read_in_milliseconds(self) -> None:
        """And one that is no time is refused."""
        assert (
            self.received(scan_started_at="2030-01-01T00:00:00.007Z").value.scan_started_at == 1893456000007
        )
        with pytest.raises(RecordError) as caught:
            self.received(scan_started_at="soon")
        assert caught.value.reason == "invalid-header"

    def test_header_bytes_that_are_no_text_are_replaced(self) -> None:
        """Others' headers must not stop a stage; of a repeated name the last counts."""
        assert text_headers([("a", b"\xff"), ("b", b"1"), ("b", b"2")]) == {"a": "�", "b": "2"}


class Gauge(msgspec.Struct, frozen=True):
    """A type that only one codec knows."""

    level: int


def test_a_codec_may_know_types_of_its_own() -> None:
    """A type given to one codec travels through it, and is registered nowhere else."""
    real = load_topics()
    topic = msgspec.structs.replace(real["sakari.events"], name="gauges", types=("gauge.v1",))
    topics = Topics([topic], real.profiles.values(), real.changelogs)
    own = Codec(topics, 4, types={"gauge.v1": Gauge})
    (output,) = own.encode(Emit("gauges", "k", Gauge(3)), CAUSE, "stage", 0)
    record = Record("gauges", output.partition, 0, 7, output.key, output.value, tuple(output.headers))
    assert (own.decode(record).value, own.decode(record).type) == (Gauge(3), "gauge.v1")
    assert "gauge.v1" not in TYPES


def test_a_public_record_always_has_a_trace() -> None:
    """What was caused by a record without a trace begins one, the same at every repetition."""
    cause = msgspec.structs.replace(CAUSE, traceparent="")
    told = {
        text_headers(written(Emit("sakari.events", KEY, FACT), cause).headers)["traceparent"] for _ in "ab"
    }
    assert told == {new_traceparent(b"cause")}
