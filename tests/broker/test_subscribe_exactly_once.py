"""Outputs and offsets in one transaction, against a real Kafka: killed, frozen, and shut out."""

import asyncio
import signal
from typing import Any

import pytest

from pipeline.errors import BrokerError
from pipeline.subscribe import Record, Subscription
from tests.broker.runtime_world import until, until_it
from tests.broker.subscribe_world import PATIENCE_S, Shop, opened, process

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def copied(shop: Shop, count: int) -> list[bytes]:
    """The sorted keys of what stands in the output, once there are *count* records."""
    keys: list[bytes] = []

    async def there() -> bool:
        keys[:] = sorted(record.key or b"" for record in await shop.records(shop.out))
        return len(keys) >= count

    await until_it(there, f"{count} copies", PATIENCE_S)
    return keys


def keys(*numbers: int) -> list[bytes]:
    """The sorted keys of the facts of *numbers*."""
    return sorted(f"acme:m:{number}".encode() for number in numbers)


async def copy(shop: Shop, facts: Subscription[Any], record: Record[Any]) -> bool:
    """Copy *record* to the output; whether it is there."""
    async with facts.transaction() as tx:
        await tx.send(shop.out, key=record.key, value=record.event)
    return tx.committed


async def copying(shop: Shop, **options: Any) -> None:
    """A member that copies all facts, until cancelled."""
    async with shop.subscribed(exactly_once=True, **options) as facts:
        async for record in facts:
            await copy(shop, facts, record)


async def test_a_killed_subscriber_writes_exactly_once(kafka: str) -> None:
    """However often it is killed, each fact stands once in its output."""
    async with opened(kafka) as shop:
        await shop.write(*range(120))
        for lines in (20, 30):
            async with process(shop, "copy") as one:
                await one.printed(lines)
        async with process(shop, "copy"):
            assert await copied(shop, 120) == keys(*range(120))
        assert await copied(shop, 120) == keys(*range(120))


async def test_a_frozen_subscriber_that_thaws_writes_nothing_twice(kafka: str) -> None:
    """One that does not know that its partitions are another's is shut out by whoever has them."""
    async with opened(kafka) as shop, process(shop, "copy") as frozen:
        await shop.write(*range(400))
        await frozen.printed(20)
        frozen.child.send_signal(signal.SIGSTOP)
        async with process(shop, "copy") as heir:
            await heir.printed(100)
            frozen.child.send_signal(signal.SIGCONT)
            assert await copied(shop, 400) == keys(*range(400))
        await shop.write(*range(400, 410))
        assert await copied(shop, 410) == keys(*range(410))


async def test_a_transaction_for_a_partition_that_is_gone_does_not_stand(kafka: str) -> None:
    """Whoever overruns ``drain_s`` is told, writes nothing, and the fact is copied once all the same."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(20))
        async with shop.subscribed(exactly_once=True, drain_s=0.2) as first:
            record = await anext(first)
            second = tasks.create_task(copying(shop))
            await until(first._feed.progress.idle.is_set, "giving up")
            assert not await copy(shop, first, record)
        assert await copied(shop, 20) == keys(*range(20))
        second.cancel()


async def test_two_members_share_the_work_exactly_once(kafka: str) -> None:
    """A member that joins in the middle neither misses nor repeats anything."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(100))
        members = [tasks.create_task(copying(shop))]
        await copied(shop, 20)
        members.append(tasks.create_task(copying(shop)))
        await shop.write(*range(100, 200))
        assert await copied(shop, 200) == keys(*range(200))
        for member in members:
            member.cancel()


async def test_what_is_not_wanted_is_passed_exactly_once_too(kafka: str) -> None:
    """Offsets of partitions where nothing is wanted are committed beside those of transactions."""
    async with opened(kafka) as shop, asyncio.TaskGroup() as tasks:
        await shop.write(*range(40))
        member = tasks.create_task(copying(shop, key={"acme:m:3", "acme:m:30"}))
        assert await copied(shop, 2) == keys(3, 30)

        async def passed() -> bool:
            committed = await shop.committed()
            return sum(committed.values()) >= 40

        await until_it(passed, "all passed")
        member.cancel()


async def test_a_record_that_kafka_refuses_is_told_of(kafka: str) -> None:
    """A transaction that never succeeds ends the subscriber, instead of repeating for ever."""
    async with opened(kafka) as shop:
        await shop.write(1)
        with pytest.raises(BrokerError, match="MessageSizeTooLarge"):
            await writing_too_much(shop)


async def writing_too_much(shop: Shop) -> None:
    """A member whose outputs are larger than Kafka takes."""
    async with shop.subscribed(exactly_once=True) as facts:
        async for _ in facts:
            async with facts.transaction() as tx:
                await tx.send(shop.out, key="k", value=b"x" * 2_000_000)
