"""What all folders of tests share: Kafka, one to be treated well and one ill, and logs of each test's own."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from pipeline.chaos import proxy
from pipeline.runtime.broker_cluster import EmbeddedCluster, kept_ports
from tests.broker.wire import Wire
from tests.kafka_fixture import running_kafka

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=(HealthCheck.too_slow,)
)
settings.load_profile("unhurried")


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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def own_wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """The only node of a cluster of its own, and the network in front of it."""
    (port,) = kept_ports(1)
    cluster = EmbeddedCluster(tmp_path_factory.mktemp("wire"), count=1, advertised_ports=(port,))
    async with proxy.opened(port, cluster.nodes[0].port) as network, cluster:
        yield Wire(cluster.bootstrap_servers, cluster.nodes[0], network)


@pytest_asyncio.fixture(loop_scope="session")
async def wire(own_wire: Wire) -> AsyncIterator[Wire]:
    """A node and a network to be ill-treated; both are sound again afterwards."""
    yield own_wire
    await own_wire.heal()
