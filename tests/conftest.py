"""What all folders of tests share: one Kafka per session."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kafka_fixture import running_kafka


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what works with the session's Kafka, so that it can be run against another one."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka() -> AsyncIterator[str]:
    """The bootstrap servers of the session's Kafka; use fresh topics and groups in each test."""
    async with running_kafka() as servers:
        yield servers
