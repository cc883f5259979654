"""The proxy between clients and a broker: it passes everything on, and misbehaves when told to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from pipeline.chaos.proxy import Proxy, opened
from pipeline.runtime.broker_cluster import kept_ports

DEADLINE_S = 5.0
QUIET_S = 0.1


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Give back what comes."""
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that gives back what it gets."""
    port, target_port = kept_ports(2)
    async with (
        await asyncio.start_server(echo, "127.0.0.1", target_port),
        opened(port, target_port) as running,
    ):
        yield running


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through *proxy*."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def returned(reader: asyncio.StreamReader, size: int) -> bytes:
    """So many bytes, in time."""
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readexactly(size)


async def test_everything_passes(proxy: Proxy) -> None:
    """What is sent comes back whole, however large."""
    data = bytes(range(256)) * 4_000
    async with connected(proxy) as (reader, writer):
        writer.write(data)
        assert await returned(reader, len(data)) == data


async def test_a_forgotten_connection_stays_open_for_nothing(proxy: Proxy) -> None:
    """Nothing comes on it ever again and nobody says so; a new one is as good as before."""
    async with connected(proxy) as (reader, writer):
        writer.write(b"known")
        assert await returned(reader, 5) == b"known"
        proxy.forget()
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), QUIET_S)
        async with connected(proxy) as (new, fresh):
            fresh.write(b"new")
            assert await returned(new, 3) == b"new"


async def test_a_stalled_connection_stays_open_and_goes_on(proxy: Proxy) -> None:
    """While it is stalled nothing comes and nothing ends; afterwards nothing is missing."""
    async with connected(proxy) as (reader, writer):
        proxy.stalled = True
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), QUIET_S)
        proxy.heal()
        assert await returned(reader, 4) == b"held"


async def test_a_cut_ends_every_connection(proxy: Proxy) -> None:
    """Both ends learn of it, and a new connection works."""
    async with connected(proxy) as (reader, writer):
        writer.write(b"x")
        await returned(reader, 1)
        proxy.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await returned(reader, 1)
    async with connected(proxy) as (reader, writer):
        writer.write(b"y")
        assert await returned(reader, 1) == b"y"


async def test_a_refused_connection_ends_at_once(proxy: Proxy) -> None:
    """Whoever comes while it refuses is sent away."""
    proxy.refusing = True
    async with connected(proxy) as (reader, _), asyncio.timeout(DEADLINE_S):
        assert await reader.read(1) == b""


async def test_delayed_data_comes_late(proxy: Proxy) -> None:
    """There and back takes twice the delay at least."""
    proxy.delay_s = QUIET_S
    async with connected(proxy) as (reader, writer):
        begun = time.monotonic()
        writer.write(b"late")
        assert await returned(reader, 4) == b"late"
    assert time.monotonic() - begun >= 2 * QUIET_S


async def test_a_broker_that_is_away_refuses_through_the_proxy() -> None:
    """Nobody behind it: the connection ends, as without a proxy."""
    port, target_port = kept_ports(2)
    async with opened(port, target_port) as proxy, connected(proxy) as (reader, _):
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read(1) == b""


async def test_nothing_is_left_of_ended_connections(proxy: Proxy) -> None:
    """A run of hours does not fill up with connections that are gone."""
    async with connected(proxy) as (reader, writer):
        writer.write(b"x")
        await returned(reader, 1)
        assert proxy.connections == 1
    async with asyncio.timeout(DEADLINE_S):
        while proxy.connections:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
