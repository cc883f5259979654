"""Broker, sandbox and pipeline as separate processes, as in production, with the oracle as judge."""

import signal
from pathlib import Path

from tests.acceptance.programs import outside

RATE = 80


async def test_a_pipeline_killed_amid_traffic_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After kill -9 a new process on the same state folder goes on from what was committed."""
    async with outside(tmp_path) as world:
        async with world.pipeline("state") as killed:
            await world.send((await killed.line("ready"))["receiver"], RATE)
            await world.sent(10 * RATE)
            killed.signal(signal.SIGKILL)
            assert await killed.ended() == -signal.SIGKILL
        async with world.pipeline("state") as program:
            await program.line("ready")
            await world.sent(30 * RATE)
            await world.stop()
            report = await world.verified()
    assert (report["mismatches"], report["uncovered"], report["exit"]) == (0, [], 0), report


async def test_processes_that_share_the_work_come_and_go(tmp_path: Path) -> None:
    """One of two is stopped and started again under traffic; partitions move, nothing is lost or doubled."""
    async with outside(tmp_path) as world, world.pipeline("stays") as stays:
        await world.send((await stays.line("ready"))["receiver"], RATE)
        async with world.pipeline("goes", PIPELINE_RECEIVER__PORT="0") as goes:
            await goes.line("ready")
            await world.sent(10 * RATE)
            goes.signal(signal.SIGTERM)
            assert await goes.ended() == 0
        async with world.pipeline("goes", PIPELINE_RECEIVER__PORT="0") as goes:
            await goes.line("ready")
            await world.sent(30 * RATE)
            await world.stop()
            report = await world.verified()
    assert (report["mismatches"], report["uncovered"], report["exit"]) == (0, [], 0), report
