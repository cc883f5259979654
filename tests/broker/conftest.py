"""What the tests on a real broker share besides the session's Kafka."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pipeline.chaos import proxy
from pipeline.runtime.broker_cluster import EmbeddedCluster, kept_ports
from tests.broker.wire import Wire


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def own_wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """The only node of a cluster of its own, and the network in front of it."""
    (port,) = kept_ports(1)
    folder: Path = tmp_path_factory.mktemp("wire")
    cluster = EmbeddedCluster(folder, count=1, advertised_ports=(port,))
    async with proxy.opened(port, cluster.nodes[0].port) as network, cluster:
        yield Wire(cluster.bootstrap_servers, cluster.nodes[0], network)


@pytest_asyncio.fixture(loop_scope="session")
async def wire(own_wire: Wire) -> AsyncIterator[Wire]:
    """A node and a network to be ill-treated; both are sound again afterwards."""
    yield own_wire
    await own_wire.heal()
