"""A Kafka of one node behind a network, both to be ill-treated."""

from typing import NamedTuple

from pipeline.chaos.proxy import Proxy
from pipeline.runtime.broker_cluster import Node


class Wire(NamedTuple):
    """Where clients connect, the node, and the network between them."""

    kafka: str
    node: Node
    network: Proxy

    async def heal(self) -> None:
        """Let both work as they should."""
        self.network.heal()
        self.node.thaw()
        if not self.node.running:
            await self.node.start()
