"""What all folders of tests share: one Kafka per session, and logs that no test has set for another."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog

from tests.kafka_fixture import running_kafka


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what works with the session's Kafka, so that it can be run against another one."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a command that a test calls does to this process's logs, such as hiding most, ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka() -> AsyncIterator[str]:
    """The bootstrap servers of the session's Kafka; use fresh topics and groups in each test."""
    async with running_kafka() as servers:
        yield servers
