"""
A load generator that is never the bottleneck: raw HTTP/1.1 over kept connections, in a process of its own.

``python -m tests.bench.receiver_load PORT FILE SECONDS CONNECTIONS``: FILE holds whole requests (msgpack, a
list of bytes), sent over and over, each connection with one request in flight. Prints one line of JSON.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import cast

import msgspec
import orjson
import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Load:
    """What is sent, and what came back."""

    def __init__(self, requests: list[bytes]) -> None:
        self.requests = cycle(requests)
        self.statuses: Counter[str] = Counter()


class Connection(asyncio.Protocol):
    """One kept connection: the next request follows the last byte of an answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._write: Callable[[bytes], None] = _nowhere

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._write = cast("asyncio.Transport", transport).write  # uvloop's is no subclass
        self._write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        """Count an answer that is complete, and go on."""
        self._buffer += data
        head = self._buffer.find(_HEAD_END)
        if head < 0 or len(self._buffer) < head + len(_HEAD_END) + _body_bytes(self._buffer[:head]):
            return
        self._load.statuses[self._buffer[9:12].decode()] += 1
        self._buffer = b""
        self._write(next(self._load.requests))

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that never came is counted too, unless we ended it."""
        if exc is not None:
            self._load.statuses["broken"] += 1


def _nowhere(_data: bytes) -> None:
    raise AssertionError("not connected")


def _body_bytes(head: bytes) -> int:
    lower = head.lower()
    begin = lower.find(_LENGTH) + len(_LENGTH)
    return int(lower[begin:].split(b"\r\n", 1)[0])


async def run(port: int, requests: list[bytes], seconds: float, connections: int) -> dict[str, object]:
    """Send for *seconds*; the figures."""
    load, loop = Load(requests), asyncio.get_running_loop()
    begun = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port) for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    took, statuses = time.perf_counter() - begun, dict(load.statuses)
    for transport, _ in opened:
        transport.abort()
    total = sum(statuses.values())
    return {
        "requests_per_s": total / took,
        "statuses": statuses,
        "client_cpu_share": round(time.process_time() / took, 2),
    }


def main() -> None:
    """Parse the command line and print the figures."""
    port, file, seconds, connections = sys.argv[1:]
    requests = msgspec.msgpack.decode(Path(file).read_bytes(), type=list[bytes])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(int(port), requests, float(seconds), int(connections)))
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()
