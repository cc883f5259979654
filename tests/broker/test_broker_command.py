"""`pipeline broker` as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from pipeline.cli.broker import broker
from pipeline.errors import ConfigError

DEADLINE_S = 60
PROGRAM = """
import asyncio, pathlib, sys
from pipeline.cli.broker import broker
asyncio.run(broker(data_dir=pathlib.Path(sys.argv[1]), json=True))
"""


@asynccontextmanager
async def command(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command on *folder*; killed at the end when the test did not end it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder), stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process: asyncio.subprocess.Process) -> dict[str, str | int]:
    """Return the line that the command prints when Kafka serves."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)
    fields: dict[str, str | int] = orjson.loads(line)
    return fields


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_where_it_is_and_ends_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """One JSON line tells a program all it needs; a signal ends it in order with 0."""
    async with command(tmp_path) as process:
        fields = await ready(process)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0
    assert fields["kind"] == "broker"
    assert str(fields["bootstrap_servers"]).startswith("127.0.0.1:")
    assert fields["data_dir"] == str(tmp_path)


async def test_it_fails_when_kafka_ends_by_itself(tmp_path: Path) -> None:
    """Whoever supervises the command learns that Kafka is gone."""
    async with command(tmp_path) as process:
        os.kill(int((await ready(process))["pid"]), signal.SIGKILL)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) != 0


async def test_it_asks_for_the_name_that_clients_come_to() -> None:
    """Every address is none to connect to: said before anything starts."""
    with pytest.raises(ConfigError, match="--advertised-host"):
        await broker(ephemeral=True, host="0.0.0.0")
