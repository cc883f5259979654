"""
Several embedded nodes as one cluster, so that one of them can die, hang and come back.

Each is broker and controller, keeps its ports and its data over restarts, and tells clients to come to a
port of the caller's choice: that of a proxy, or its own. Topics are replicated to all of them; writing goes
on while a majority is there.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipeline.errors import BrokerError
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.broker_files import OnProgress, Progress
from pipeline.runtime.broker_settings import LOOPBACK, Seat, cluster_id, new_id

__all__ = ["EmbeddedCluster", "Node", "kept_ports"]

#: Below those that systems give to outgoing connections: who left such a port finds it free again.
_PORTS: Final = range(15_000, 32_000)
_TRIES: Final = 1_000


class Node:
    """One node; it can be started again after `kill`."""

    def __init__(self, folder: Path, seat: Seat, heap_mb: int, on_progress: OnProgress) -> None:
        self.port = seat.port
        self.advertised_port = seat.advertised_port
        self._broker = EmbeddedBroker(
            folder, heap_mb=heap_mb, seat=seat, on_progress=on_progress, record_start=False
        )
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether it has served and was not killed since."""
        return self._pid > 0

    async def start(self) -> None:
        """
        Return when the node serves, for which it needs a majority of all.

        Raises:
            BrokerError: it died, or took too long.
        """
        await self._broker.start()
        self._pid = self._broker.pid

    async def kill(self) -> None:
        """End it with SIGKILL, and return when it is gone."""
        self._pid = 0
        await self._broker.kill()

    def freeze(self) -> None:
        """Let it do nothing until `thaw`; its connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._pid:
            os.kill(self._pid, number)


class EmbeddedCluster:
    """
    *count* nodes in *folder*, from ``async with`` to its end.

    *advertised_ports* are what clients are told, one for each node; by default the nodes' own. The end is
    an abrupt one, which Kafka bears: in order, each node would wait for others that are gone already.
    Entering raises `ConfigError` or `BrokerError` as `EmbeddedBroker` does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 3,
        advertised_ports: Sequence[int] = (),
        heap_mb: int = 256,
        on_progress: OnProgress = lambda _: None,
    ) -> None:
        self._on_progress = on_progress
        ports = kept_ports(3 * count)
        cluster = cluster_id(folder / "node-1" / "data") or new_id()
        self.nodes = tuple(
            Node(
                folder / f"node-{number}",
                Seat(
                    node_id=number,
                    cluster=cluster,
                    port=ports[number - 1],
                    advertised_port=(advertised_ports or ports)[number - 1],
                    peer_port=ports[count + number - 1],
                    controller_ports=ports[2 * count :],
                ),
                heap_mb,
                self._downloading,
            )
            for number in range(1, count + 1)
        )

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return ",".join(f"{LOOPBACK}:{node.advertised_port}" for node in self.nodes)

    async def __aenter__(self) -> Self:
        self._on_progress(Progress(text=f"starting Kafka on {len(self.nodes)} nodes"))
        try:
            async with asyncio.TaskGroup() as tasks:
                for node in self.nodes:
                    tasks.create_task(node.start(), name=f"start Kafka at {node.port}")
        except* BrokerError as group:
            await self.stop()
            raise BrokerError(str(group.exceptions[0])) from group
        except* BaseException:
            await self.stop()
            raise
        self._on_progress(Progress(text=f"Kafka is ready at {self.bootstrap_servers}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End all nodes."""
        async with asyncio.TaskGroup() as tasks:
            for node in self.nodes:
                tasks.create_task(node.kill(), name=f"end Kafka at {node.port}")

    def _downloading(self, step: Progress) -> None:
        """Of one node's start only the first download is told: the rest is the same for all."""
        if step.total_bytes:
            self._on_progress(step)


def kept_ports(count: int) -> tuple[int, ...]:
    """
    Ports for servers that go away and come back: no outgoing connection takes them meanwhile.

    Raises:
        BrokerError: there are not so many.
    """
    found: list[int] = []
    with ExitStack() as listeners:
        for port in random.sample(_PORTS, _TRIES):
            listener = listeners.enter_context(socket.socket())
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return tuple(found)
    raise BrokerError(f"no {count} ports are free between {_PORTS.start} and {_PORTS.stop}")
