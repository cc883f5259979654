"""
A TCP proxy in front of one broker, which can be told to misbehave as networks do.

Clients are told its port by the broker itself (``advertised.listeners``), so that everything of theirs
passes here; what brokers say to each other does not.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

__all__ = ["Proxy", "opened"]

_CHUNK_BYTES: Final = 65_536
_HOST: Final = "127.0.0.1"


class Proxy:
    """Passes everything on between *port* and *target_port*, but for what is in force."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.delay_s = 0.0  #: each piece of data comes so much later
        self.refusing = False  #: new connections are closed at once
        self._target_port = target_port
        self._generation = 0
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._tasks)

    @property
    def stalled(self) -> bool:
        """Whether nothing passes, and nobody is told."""
        return not self._passing.is_set()

    @stalled.setter
    def stalled(self, now: bool) -> None:
        (self._passing.clear if now else self._passing.set)()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def forget(self) -> None:
        """Pass nothing more on every connection that there is, and tell nobody; new ones are as before."""
        self._generation += 1

    def heal(self) -> None:
        """Misbehave no more."""
        self.delay_s, self.refusing, self.stalled = 0.0, False, False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._joined(reader, writer)
        finally:
            self._tasks.discard(task)

    async def close(self) -> None:
        """End all connections."""
        self.cut()
        for task in (*self._tasks,):
            task.cancel()
        if self._tasks:
            await asyncio.wait((*self._tasks,))

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with _owned(self._writers, writer):
            if self.refusing:
                return
            await self._passing.wait()
            try:
                inner_reader, inner_writer = await asyncio.open_connection(_HOST, self._target_port)
            except OSError:
                return  # the broker is away: so is this connection
            with _owned(self._writers, inner_writer):
                await self._both(reader, writer, inner_reader, inner_writer)

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inner_reader: asyncio.StreamReader,
        inner_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass on both ways; the end of either is the end of both."""
        ways = (
            asyncio.ensure_future(self._pass_on(reader, inner_writer)),
            asyncio.ensure_future(self._pass_on(inner_reader, writer)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._generation
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passing.wait()
                if generation == self._generation:
                    writer.write(data)
                    await writer.drain()


class _owned:  # noqa: N801 - used as a function
    """*writer*, among *all_* until the end of the block, which closes it."""

    def __init__(self, all_: set[asyncio.StreamWriter], writer: asyncio.StreamWriter) -> None:
        self._all = all_
        self._writer = writer

    def __enter__(self) -> None:
        self._all.add(self._writer)

    def __exit__(self, *_: object) -> None:
        self._all.discard(self._writer)
        self._writer.close()


@asynccontextmanager
async def opened(port: int, target_port: int) -> AsyncIterator[Proxy]:
    """A proxy that listens on *port* until the end of the block."""
    proxy = Proxy(port, target_port)
    server = await asyncio.start_server(proxy.serve, _HOST, port)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
