"""A compacted topic as a mapping, against a real Kafka."""

import asyncio

import pytest

from pipeline.errors import ConfigError
from pipeline.subscribe import Change, table
from tests.broker.runtime_world import until, until_it
from tests.broker.subscribe_world import PATIENCE_S, Shop, opened, tag
from tests.broker.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def put(shop: Shop, **names: str | None) -> None:
    """Write a tag under each key ``acme:<key>``; None removes it."""
    await shop.write_values(
        [(shop.tags, f"acme:{key}", None if name is None else tag(name)) for key, name in names.items()]
    )


async def test_a_table_begins_with_a_snapshot_and_keeps_itself_current(kafka: str) -> None:
    """When it is ready all of the topic is there; updates and tombstones follow, each told as a change."""
    async with opened(kafka) as shop:
        await put(shop, a="A", b="B", gone="G")
        await put(shop, a="A2", gone=None)
        async with shop.table() as tags, asyncio.timeout(PATIENCE_S):
            await tags.ready()
            assert dict(tags) == {"acme:a": tag("A2"), "acme:b": tag("B")}
            changes = tags.changes()
            await put(shop, b="B2")
            assert await anext(changes) == Change(key="acme:b", before=tag("B"), after=tag("B2"))
            await put(shop, a=None)
            assert await anext(changes) == Change(key="acme:a", before=tag("A2"), after=None)
            assert dict(tags) == {"acme:b": tag("B2")}


async def test_an_empty_topic_is_an_empty_table(kafka: str) -> None:
    """There is nothing to wait for."""
    async with opened(kafka) as shop, shop.table() as tags, asyncio.timeout(PATIENCE_S):
        await tags.ready()
        assert not tags


async def test_what_was_taken_back_is_no_row(kafka: str) -> None:
    """A transaction that was aborted at the end of the log neither counts nor is waited for."""
    async with opened(kafka) as shop:
        await put(shop, a="A")
        await shop.write_values([(shop.tags, "acme:a", tag("never"))], commit=False)
        async with shop.table() as tags, asyncio.timeout(PATIENCE_S):
            await tags.ready()
            assert tags["acme:a"] == tag("A")


async def test_a_compacted_topic_is_the_same_table(kafka: str) -> None:
    """Holes in the log, and a log whose beginning is gone, are passed."""
    eager = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"}
    async with opened(kafka, {"tags": {**eager, "delete.retention.ms": "100"}}) as shop:
        for number in range(6):
            await put(shop, a=f"A{number}", b=None if number % 2 else f"B{number}")

        async def cleaned() -> bool:
            await put(shop, rolls="on")
            return len(await shop.records(shop.tags)) < 12

        await until_it(cleaned, "compacted", deadline_s=90)
        async with shop.table() as tags, asyncio.timeout(PATIENCE_S):
            await tags.ready()
            assert dict(tags) == {"acme:a": tag("A5"), "acme:rolls": tag("on")}


async def test_a_table_survives_its_broker(wire: Wire) -> None:
    """Its rows stay while no broker answers, and it goes on once one does."""
    async with opened(wire.kafka) as shop:
        await put(shop, a="A")
        async with shop.table() as tags, asyncio.timeout(PATIENCE_S):
            await tags.ready()
            await wire.node.kill()
            assert tags["acme:a"] == tag("A")
            await wire.node.start()
            await put(shop, a="A2")
            await until(lambda: tags["acme:a"] == tag("A2"), "the update")


async def test_a_topic_that_is_not_there_is_named(kafka: str) -> None:
    """Nobody waits for a table that will never be."""
    shop = Shop(kafka)
    with pytest.raises(ConfigError, match=f"no topic {shop.tags}"):
        async with table(shop.tags, bootstrap_servers=kafka, topics=shop.topics):
            pass
