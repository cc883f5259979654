"""What a subscription promises, against a real Kafka."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.errors import BrokerError, ConfigError
from pipeline.subscribe import Record, Subscription
from tests.broker.runtime_world import until, until_it
from tests.broker.subscribe_world import AT_MS, PATIENCE_S, Shop, opened, process, started
from tests.broker.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def taken(facts: Subscription[Any], count: int) -> list[Record[Any]]:
    """The next *count* records."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(facts) for _ in range(count)]


def numbers(records: list[Record[Any]]) -> list[int]:
    """What tells the facts of *records* apart, in order."""
    return sorted(int(record.event.conversation_id) for record in records)


async def test_a_record_has_its_event_and_all_that_is_told_of_it(kafka: str) -> None:
    """Value, key, place, times, id, trace and headers are those that were written."""
    async with opened(kafka) as shop:
        await shop.write(7)
        async with shop.subscribed() as facts:
            (record,) = await taken(facts, 1)
    assert record.event == started(7)
    assert (record.key, record.offset, record.type) == ("acme:m:7", 0, "sakari.conversation.started.v1")
    assert record.timestamp == record.time == datetime(2026, 11, 1, tzinfo=UTC)
    assert record.headers["ce_id"] == record.id
    assert record.headers["traceparent"] == record.trace != ""


async def test_what_was_taken_back_is_never_seen(kafka: str) -> None:
    """Records of an aborted transaction are not handed out."""
    async with opened(kafka) as shop:
        await shop.write(1, key="acme:m:1", commit=False)
        await shop.write(2, key="acme:m:1")
        async with shop.subscribed() as facts:
            assert numbers(await taken(facts, 1)) == [2]


async def divided(shop: Shop) -> None:
    """A subscriber with a bug that the fact with the number 2 brings to light."""
    async with shop.subscribed() as facts:
        async for record in facts:
            assert 1 / (int(record.event.conversation_id) - 2)


async def test_after_an_exception_the_record_in_hand_comes_again(kafka: str) -> None:
    """What was done before is committed, the record whose processing failed is not."""
    async with opened(kafka) as shop:
        await shop.write(0, 1, 2, 3, key="acme:m:1")
        with pytest.raises(ZeroDivisionError):
            await divided(shop)
        async with shop.subscribed() as facts:
            assert numbers(await taken(facts, 2)) == [2, 3]


async def test_a_clean_end_commits_the_record_in_hand(kafka: str) -> None:
    """After leaving the loop without an exception nothing comes again."""
    async with opened(kafka) as shop:
        await shop.write(0, 1, 2, key="acme:m:1")
        async with shop.subscribed() as facts:
            async for record in facts:
                if record.event.conversation_id == "1":
                    break
        async with shop.subscribed() as facts:
            assert numbers(await taken(facts, 1)) == [2]


async def test_a_batch_waits_for_more_within_its_bound(kafka: str) -> None:
    """A full batch comes at once, a short one when its first record has waited long enough."""
    async with opened(kafka) as shop, shop.subscribed() as facts, asyncio.timeout(PATIENCE_S):
        await shop.write(*range(13), key="acme:m:1")
        batches = facts.batches(max_records=10, max_wait_s=0.3)
        assert [len(await anext(batches)) for _ in range(2)] == [10, 3]


async def test_a_batch_may_be_larger_than_what_is_fetched_at_once(kafka: str) -> None:
    """A batch is as large as asked for, and does not wait for its bound when there is enough."""
    async with opened(kafka) as shop, shop.subscribed() as facts, asyncio.timeout(PATIENCE_S):
        await shop.write(*range(3_500))
        assert len(await anext(facts.batches(max_records=3_500, max_wait_s=600))) == 3_500


async def test_a_cancelled_wait_loses_nothing(kafka: str) -> None:
    """Whoever gives up waiting finds every record later."""
    async with opened(kafka) as shop, shop.subscribed() as facts:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(facts)
        await shop.write(*range(20))
        assert numbers(await taken(facts, 20)) == list(range(20))


async def test_a_killed_subscriber_loses_nothing(kafka: str) -> None:
    """After kill -9 the next member gets every record that was not done, and little that was."""
    async with opened(kafka) as shop:
        await shop.write(*range(400))
        async with process(shop, "print") as first:
            await first.printed(150)
            await first.kill()
        seen = {*map(int, first.lines)}
        async with process(shop, "print") as second, asyncio.timeout(PATIENCE_S):
            while len(seen) < 400:
                seen |= {*map(int, await second.printed(len(second.lines) + 1))}
    assert seen == set(range(400))
    assert len(second.lines) < 400


async def taking(facts: Subscription[Any], found: list[Record[Any]]) -> None:
    """Append all records of *facts* to *found*, until cancelled."""
    async for record in facts:
        found.append(record)


async def joining(shop: Shop, found: list[Record[Any]], **options: Any) -> None:
    """Append all records that a further member gets to *found*, until cancelled."""
    async with shop.subscribed(**options) as facts:
        await taking(facts, found)


async def test_what_is_in_hand_is_finished_before_partitions_are_given_up(kafka: str) -> None:
    """A second member waits for what the first has in hand, and gets nothing that the first had done."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(40))
        async with shop.subscribed(commit_every_s=60) as first:
            mine, others = await taken(first, 5), list[Record[Any]]()
            second = tasks.create_task(joining(shop, others))
            await until(lambda: not first._feed._open, "a rebalance")  # type: ignore[attr-defined]
            assert not others
            going_on = tasks.create_task(taking(first, mine))
            await until(lambda: len(mine) + len(others) >= 40, "all records")
            assert others
            going_on.cancel()
            second.cancel()
            await asyncio.wait((going_on, second))
    assert numbers([*mine, *others]) == list(range(40))


async def test_what_takes_longer_than_its_bound_goes_to_whoever_has_the_partition_next(kafka: str) -> None:
    """What is in hand for longer than ``drain_s`` is not committed by the member that had it."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(0, key="acme:m:1")
        async with shop.subscribed(drain_s=0.2) as first:
            await taken(first, 1)
            again = list[Record[Any]]()
            second = tasks.create_task(joining(shop, again, commit_every_s=60))
            await until(first._feed.progress.idle.is_set, "giving up")
            going_on = tasks.create_task(taking(first, again))
            await until(lambda: bool(again), "the record again")
            going_on.cancel()
            second.cancel()
            await asyncio.wait((going_on, second))
    assert numbers(again) == [0]


async def test_a_member_that_is_stuck_lets_others_have_its_partitions(kafka: str) -> None:
    """What is in hand for longer than ``stuck_s`` goes to another; the first goes on when it asks again."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(10))
        async with shop.subscribed(stuck_s=0.3) as first, asyncio.timeout(PATIENCE_S):
            await taken(first, 1)
            others = list[Record[Any]]()
            second = tasks.create_task(joining(shop, others))
            await until(lambda: len(others) == 10, "all records at the other member")
            second.cancel()
            await asyncio.wait((second,))
            await shop.write(10)
            assert numbers(await taken(first, 1)) == [10]


async def test_what_is_done_is_committed_while_nothing_waits(kafka: str) -> None:
    """A subscriber that has processed everything has committed everything, without waiting for an end."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(10))
        member = tasks.create_task(joining(shop, [], commit_every_s=600))

        async def committed() -> bool:
            return sum((await shop.committed()).values()) >= 10

        await until_it(committed, "all committed")
        member.cancel()


@pytest.mark.parametrize(
    ("start", "found"),
    [
        ("earliest", [0, 1, 2, 3, 4, 5]),
        ("latest", [5]),
        (datetime(2026, 11, 1, 0, 0, 5, tzinfo=UTC), [3, 4, 5]),
        ("offset 3", [2, 3, 4, 5]),  # each write is a transaction, whose end takes an offset
    ],
)
async def test_a_new_group_begins_where_it_asks_to(kafka: str, start: Any, found: list[int]) -> None:
    """Earliest is everything, latest what comes, a time what was received since, offsets what they say."""
    async with opened(kafka) as shop:
        for number in range(5):
            await shop.write(number, key="acme:m:1", at_ms=AT_MS + number * 2_000)
        (partition,) = shop.codec.placed(shop.topics[shop.events], "acme:m:1")
        begin = {partition: 3} if start == "offset 3" else start
        async with shop.subscribed(start=begin) as facts:
            await until(lambda: bool(facts._feed._open), "partitions")  # type: ignore[attr-defined]
            await shop.write(5, key="acme:m:1", at_ms=AT_MS + 10_000)
            assert numbers(await taken(facts, len(found))) == found


async def test_a_time_to_begin_with_holds_until_something_is_done(kafka: str) -> None:
    """What was received before it is not handed out by a later member either."""
    async with opened(kafka) as shop:
        for number in range(4):
            await shop.write(number, key="acme:m:1", at_ms=AT_MS + number * 2_000)
        start = datetime(2026, 11, 1, 0, 0, 6, tzinfo=UTC)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await failing_at_once(shop, start)
        async with shop.subscribed(start=start) as facts:
            assert numbers(await taken(facts, 1)) == [3]


async def failing_at_once(shop: Shop, start: datetime) -> None:
    """A member that begins at *start*, and fails at its first record."""
    async with shop.subscribed(start=start) as facts:
        (record,) = await taken(facts, 1)
        assert 1 / (int(record.event.conversation_id) - 3)


async def test_a_subscription_survives_its_broker(wire: Wire) -> None:
    """While no broker answers it waits; then it goes on where it was, and loses nothing."""
    async with opened(wire.kafka) as shop:
        await shop.write(*range(10))
        async with shop.subscribed() as facts:
            found = await taken(facts, 5)
            await wire.node.kill()
            await wire.node.start()
            await shop.write(*range(10, 20))
            while {*numbers(found)} != {*range(20)}:
                found += await taken(facts, 1)


async def test_a_topic_that_is_not_there_is_named(kafka: str) -> None:
    """Nobody waits for records that will never come."""
    with pytest.raises(ConfigError, match="no topic"):
        await divided(Shop(kafka))


async def test_servers_that_do_not_answer_are_named() -> None:
    """The error says who was asked."""
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        await divided(Shop("127.0.0.1:1"))
