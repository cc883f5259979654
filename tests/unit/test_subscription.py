"""Subscriptions and tables without a broker, by the doubles that subscribers use in their own tests."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args, get_overloads, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BrokerError, ConfigError
from pipeline.events import (
    TYPES,
    Activity,
    ConversationClosed,
    ConversationStarted,
    LocationTag,
    Received,
    Tick,
)
from pipeline.instants import Time
from pipeline.subscribe import Change, Record, Unreadable, subscribe, table
from pipeline.subscribe.progress import Buffer, Progress
from pipeline.subscribe.record import Fetched
from pipeline.testing import FedSubscription, FedTable
from pipeline.topics import Topic, load
from tests.contract.golden_values import VALUES

AT = Time("2030-01-01T00:00:00.000Z")


def started(number: int = 1, tenant: str = "acme") -> ConversationStarted:
    """A fact that is told apart by its *number*."""
    return ConversationStarted(tenant=tenant, account_id="a", occurred_at=AT, conversation_id=str(number))


def tag(name: str) -> LocationTag:
    """A location tag of *name*."""
    return LocationTag(tenant="acme", location_id="l", tag_id="t", name=name)


async def taken(fed: FedSubscription) -> list[Record[Any]]:
    """All that is handed out."""
    async with fed.subscription as facts:
        return [record async for record in facts]


async def test_filters_keep_what_is_wanted() -> None:
    """Type, tenant and key are all to fit."""
    fed = FedSubscription("sakari.events", types=[ConversationStarted], tenant="acme", key={"acme:m:1"})
    fed.feed("acme:m:1", started(1))
    fed.feed("acme:m:2", started(2))
    fed.feed("bolt:m:1", started(3, "bolt"))
    closed = ConversationClosed(tenant="acme", account_id="a", occurred_at=AT, conversation_id="4")
    fed.feed("acme:m:1", closed)
    assert [record.event for record in await taken(fed)] == [started(1)]
    assert fed.committed == {0: 4}


async def test_what_is_not_wanted_is_not_even_decoded() -> None:
    """A value that no one could read does no harm where headers or key say that it is not wanted."""
    fed = FedSubscription("sakari.events", types=["sakari.conversation.started.v1"], tenant="acme")
    fed.feed_bytes(b"acme:m:1", b"{", {"ce_type": b"sakari.conversation.started.v2"})
    fed.feed_bytes(b"bolt:m:1", b"{", {"ce_type": b"sakari.conversation.started.v1"})
    assert await taken(fed) == []
    assert fed.committed == {0: 2}


async def test_activities_are_filtered_by_their_fact() -> None:
    """Types that an activity carries may be named as well."""
    fed = FedSubscription("activity.enriched", types=[ConversationStarted])
    closed = ConversationClosed(tenant="acme", account_id="a", occurred_at=AT, conversation_id="4")
    for fact in (closed, started(1)):
        fed.feed("acme:m:1", Activity(tenant="acme", contact_key="acme:m:1", fact_id="f", event=fact))
    assert [record.event.event for record in await taken(fed)] == [started(1)]


async def test_the_tenant_stands_in_the_value_where_the_key_has_none() -> None:
    """Posted statistics are filtered by tenant although their key is an id."""
    _, _, posted = VALUES["statistics.posted.v1"]
    for tenant, count in (("acme", 1), ("nobody", 0)):
        fed = FedSubscription("statistics.posted", tenant=tenant)
        fed.feed("some-id", posted)
        assert len(await taken(fed)) == count


@pytest.mark.parametrize(
    ("key", "value", "type_", "reason"),
    [
        (b"acme:m:1", b"{", b"sakari.conversation.started.v1", "invalid-value"),
        (b"acme:m:1", b"{}", b"sakari.conversation.started.v2", "unknown-type"),
        (b"acme:m:1", None, b"sakari.conversation.started.v1", "null"),
        (None, b"{}", b"sakari.conversation.started.v1", "no-key"),
    ],
)
async def test_an_unreadable_record_is_raised_with_its_place(
    key: bytes | None, value: bytes | None, type_: bytes, reason: str
) -> None:
    """The error names topic, partition, offset and reason; the record is not committed, and raised again."""
    fed = FedSubscription("sakari.events")
    fed.feed("acme:m:1", started())
    fed.feed_bytes(key, value, {"ce_type": type_})
    async with fed.subscription as facts:
        await anext(facts)
        for _ in range(2):
            with pytest.raises(Unreadable, match=f"sakari.events partition 0 offset 1: {reason}"):
                await anext(facts)
    assert fed.committed == {0: 1}


async def test_unreadable_records_can_be_skipped() -> None:
    """A function is told of each, then it is done like any other."""
    told: list[Unreadable] = []
    fed = FedSubscription("sakari.events", errors=told.append)
    fed.feed_bytes(b"acme:m:1", b"{", {"ce_type": b"sakari.conversation.started.v1"})
    fed.feed("acme:m:1", started())
    assert [record.event for record in await taken(fed)] == [started()]
    assert [(each.offset, each.value, each.reason) for each in told] == [(0, b"{", "invalid-value")]
    assert fed.committed == {0: 2}


async def test_the_end_of_a_topic_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A subscriber's log says when its topic ends and what to read instead, once for all its records."""
    fed = FedSubscription("sakari.events")
    for number in range(3):
        told = {"ce_sunset": "2031-12-31T23:59:59.999Z", "ce_successor": "sakari.events.v2"}
        fed.feed("acme:m:1", started(number), headers=told)
    assert len(await taken(fed)) == 3
    (line,) = caplog.messages
    assert line == "topic.ends topic=sakari.events at=2031-12-31T23:59:59.999Z successor=sakari.events.v2"


async def test_a_batch_is_done_when_the_next_is_asked_for() -> None:
    """Batches are as large as asked for, and nothing of the one in hand is committed."""
    fed = FedSubscription("sakari.events")
    for number in range(5):
        fed.feed("acme:m:1", started(number))
    sizes = []
    async with fed.subscription as facts:
        async for batch in facts.batches(max_records=2):
            sizes.append(len(batch))
            await fed._feed.commit()
            assert fed.committed.get(0, 0) == 2 * (len(sizes) - 1)
    assert sizes == [2, 2, 1]
    assert fed.committed == {0: 5}


async def test_a_failure_in_a_batch_commits_nothing_of_it() -> None:
    """A restart begins with the batch that failed."""
    fed = FedSubscription("sakari.events")
    for number in range(4):
        fed.feed("acme:m:1", started(number))

    async def failing() -> None:
        async with fed.subscription as facts:
            async for batch in facts.batches(max_records=2):
                assert 1 / int(batch[0].event.conversation_id == "0")

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert fed.committed == {0: 2}


async def test_a_batch_ends_before_what_cannot_be_read() -> None:
    """What stands before it is handed out and done; the error comes with the next batch."""
    fed = FedSubscription("sakari.events")
    fed.feed("acme:m:1", started(1))
    fed.feed_bytes(b"acme:m:1", b"{", {"ce_type": b"sakari.conversation.started.v1"})
    fed.feed("acme:m:1", started(3))
    async with fed.subscription as facts:
        batches = facts.batches()
        assert [record.event for record in await anext(batches)] == [started(1)]
        with pytest.raises(Unreadable, match="offset 1"):
            await anext(batches)
    assert fed.committed == {0: 1}


async def test_partitions_where_nothing_is_wanted_are_passed() -> None:
    """Their offsets are done without waiting for what is in hand of another partition."""
    fed = FedSubscription("sakari.events", key="acme:m:1", exactly_once=True, partitions=4)
    for number in range(8):
        fed.feed(f"acme:m:{number}", started(number))
    async with fed.subscription as facts:
        async for _ in facts:
            assert len(fed._feed.progress.in_hand) == 1
            async with facts.transaction() as tx:
                await tx.send("mine", value=b"")
    assert sum(fed.committed.values()) == 8


async def test_a_transaction_writes_when_its_block_ends_well() -> None:
    """Outputs carry the trace of what caused them, and the record is done with them."""
    fed = FedSubscription("sakari.events", exactly_once=True)
    fed.feed("acme:m:1", started())
    async with fed.subscription as facts:
        record = await anext(facts)
        async with facts.transaction() as tx:
            await tx.send("mine", key="k", value={"of": record.id})
        assert tx.committed
    (written,) = fed.written
    assert (written.key, dict(written.headers)["traceparent"].decode()) == (b"k", record.trace)
    assert fed.committed == {0: 1}


async def test_a_transaction_that_fails_writes_nothing() -> None:
    """An exception in its block leaves neither outputs nor offsets."""
    fed = FedSubscription("sakari.events", exactly_once=True)
    fed.feed("acme:m:1", started())

    async def failing() -> None:
        async with fed.subscription as facts:
            await anext(facts)
            async with facts.transaction() as tx:
                await tx.send("mine", value=b"")
                assert 1 / int(tx.committed)

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert (fed.written, fed.committed) == ([], {})


async def test_there_is_one_transaction_for_what_is_in_hand() -> None:
    """A second one, or one without a record, would have no offsets to stand for."""
    fed = FedSubscription("sakari.events", exactly_once=True)
    fed.feed("acme:m:1", started())
    async with fed.subscription as facts:
        with pytest.raises(ConfigError, match="in hand"):
            facts.transaction()
        await anext(facts)
        async with facts.transaction():
            pass
        with pytest.raises(ConfigError, match="in hand"):
            facts.transaction()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"topic": "contacts.enrichd"}, "did you mean 'contacts.enriched'"),
        ({"group": ""}, "group"),
        ({"start": "begin"}, "start: 'begin'; allowed: earliest, latest"),
        ({"start": datetime(2030, 1, 1)}, "start: a time needs its zone"),  # noqa: DTZ001 - what is refused
        ({"start": {0: -1}}, "start: 0: -1"),
        ({"types": ["contacts.enriched.v2"]}, "did you mean 'contacts.enriched.v1'"),
        ({"types": [Tick]}, "clock.tick.v1"),
        ({"errors": "ignore"}, "errors: 'ignore'"),
        ({"bootstrap_servers": None}, "PIPELINE_KAFKA__BOOTSTRAP_SERVERS"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_field(
    options: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is connected to before all that was given can be used."""
    monkeypatch.delenv("PIPELINE_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    given_: dict[str, Any] = {"topic": "contacts.enriched", "group": "g", "bootstrap_servers": "h:1"}
    with pytest.raises(ConfigError, match=told):
        subscribe(**(given_ | options))


def test_a_topic_without_state_is_no_table() -> None:
    """The tables that there are are named."""
    with pytest.raises(
        ConfigError, match=r"activity.enriched keeps no state by key; allowed: sakari.contacts"
    ):
        table("activity.enriched", bootstrap_servers="h:1")


async def test_a_table_has_the_last_value_of_each_key() -> None:
    """A tombstone removes, a later value replaces."""
    fed = FedTable("users.tags")
    fed.put("acme:1", tag("a"))
    fed.put("acme:1", tag("b"))
    fed.put("acme:2", tag("c"))
    fed.put("acme:2", None)
    async with fed.table as tags:
        await tags.ready()
        assert dict(tags) == {"acme:1": tag("b")}


async def test_a_tables_rows_are_refused_before_its_snapshot() -> None:
    """Nobody takes half a table for a whole one."""
    with pytest.raises(BrokerError, match="await ready"):
        len(FedTable("users.tags").table)


async def test_changes_of_one_key_that_were_not_taken_are_one() -> None:
    """What waits is bounded by the keys: before the first, after the last; none if it is the same."""
    fed = FedTable("users.tags")
    fed.put("acme:1", tag("a"))
    async with fed.table as tags:
        changes = tags.changes()
        fed.put("acme:2", tag("x"))
        fed.put("acme:2", None)
        fed.put("acme:1", tag("b"))
        fed.put("acme:1", None)
        assert await anext(changes) == Change(key="acme:1", before=tag("a"), after=None)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not waiting.done()
        fed.put("acme:3", tag("y"))
        assert (await waiting).key == "acme:3"


async def test_a_new_snapshot_is_told_as_changes() -> None:
    """Keys that are gone without a tombstone are removed, and what is equal is no change."""
    fed = FedTable("users.tags")
    for key in ("1", "2", "3"):
        fed.put(f"acme:{key}", tag(key))
    async with fed.table as tags:
        changes = tags.changes()
        fed._source.rows.replace({"acme:1": tag("1"), "acme:2": tag("new")})
        assert {(await anext(changes)).key for _ in range(2)} == {"acme:2", "acme:3"}
        assert dict(tags) == {"acme:1": tag("1"), "acme:2": tag("new")}
        assert not changes._waiting


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans())),
    st.lists(st.integers(1, 4), min_size=1),
    st.booleans(),
)
def test_a_buffer_keeps_the_order_of_each_partition(
    puts: list[tuple[int, bool]], sizes: list[int], of_one: bool
) -> None:
    """However it is taken, all that is wanted comes once, in order, and offsets never pass what is left."""
    buffer = Buffer()
    fetched = [(Fetched(part, offset, 0, b"", b"12"), wanted) for offset, (part, wanted) in enumerate(puts)]
    for each, wanted in fetched:
        buffer.put(each, wanted=wanted)
    found: list[Fetched] = []
    turn = 0
    while buffer.holds():
        records, ends = buffer.take(sizes[turn % len(sizes)], of_one=of_one)
        found += records
        turn += 1
        left = {each for each, wanted in fetched if wanted} - {*found}
        assert all(each.offset >= ends.get(each.partition, 0) for each in left)
        assert not of_one or len({each.partition for each in records}) <= 1
    for partition in range(3):
        wanted_here = [each for each, wanted in fetched if wanted and each.partition == partition]
        assert [each for each in found if each.partition == partition] == wanted_here
    assert (buffer.ready, buffer.size) == (0, 0)


def test_a_cleared_buffer_is_empty() -> None:
    """Partitions that were given up leave neither records nor bytes behind; others stay."""
    buffer = Buffer()
    for offset, partition in enumerate((0, 1, 0, 1, 1)):
        buffer.put(Fetched(partition, offset, 0, b"", b"12"), wanted=offset > 0)
    buffer.clear([1])
    assert (buffer.ready, buffer.size) == (1, 2)
    buffer.clear()
    assert (buffer.ready, buffer.size, buffer.holds()) == (0, 0, False)


def test_a_commit_does_not_undo_what_was_done_meanwhile() -> None:
    """Only what is no further than the committed offset is forgotten."""
    progress = Progress()
    progress.hand({0: 5, 1: 2}, {0, 1})
    progress.finish()
    progress.hand({0: 7}, {0})
    progress.finish()
    progress.committed({0: 5, 1: 2})
    assert progress.done == {0: 7}


def said_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Topic -> the type of its events, as the overloads of *function* say it to type checkers."""
    hints = [get_type_hints(each) for each in get_overloads(function)]
    return {
        get_args(each["topic"])[0]: get_args(each["return"])[0] for each in hints if each["topic"] is not str
    }


def stands_on(topic: Topic) -> set[Any]:
    """What the values of *topic* are, without tombstones."""
    return {Received} if topic.types == ("raw",) else {TYPES[name] for name in topic.types}


def test_type_checkers_know_the_events_of_each_public_topic() -> None:
    """What the overloads of ``subscribe`` say is what topics.yaml says; None where there are tombstones."""
    public = {name: topic for name, topic in load().items() if topic.visibility == "public"}
    said = {name: {*get_args(said)} or {said} for name, said in said_of(subscribe).items()}
    assert said == {
        name: stands_on(topic) | ({type(None)} if topic.is_table else set()) for name, topic in public.items()
    }


def test_type_checkers_know_the_rows_of_each_public_table() -> None:
    """What the overloads of ``table`` say is what topics.yaml says."""
    public = {name: topic for name, topic in load().items() if topic.visibility == "public"}
    said = {name: {said} for name, said in said_of(table).items()}
    assert said == {name: stands_on(topic) for name, topic in public.items() if topic.is_table}
