"""A fifth of all webhooks is lost; a backfill makes good what they would have told: the oracle is judge."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.programs import DEADLINE_S, Outside, Program, outside, ran, started

RATE = 80
WEBHOOKS = 20 * RATE
LOST = 0.2
PAUSED = 3

#: Of the dialect that posts a window in one request: their posts do not hold up the rest.
TENANTS = ("acme", "bolt")

#: Once a day: no poller looks for messages and conversations again, so only a backfill finds what was lost.
#: The oracle requires every message of the last 30 days.
SELDOM = {"messages_s": 86_400.0, "conversations_s": 86_400.0, "reconcile_days": 30}


@asynccontextmanager
async def with_losses(folder: Path) -> AsyncIterator[Outside]:
    """A pipeline that has worked on traffic of which a fifth was lost, and has not heard of it by polling."""
    async with outside(folder, TENANTS) as world:
        world.change_settings(poll=SELDOM, backfill={"share": 1.0, "reserve": 0.0})
        async with world.pipeline("state") as program:
            receiver = (await program.line("ready"))["receiver"]
            await world.lose(LOST)
            await world.send(receiver, RATE)
            await world.sent(WEBHOOKS)
            await world.stop()
            report = await world.verified()
            assert report["failed_checks"]["message fact missing"] > WEBHOOKS * LOST / 10, report
            yield world


async def test_a_backfill_makes_lost_webhooks_good(tmp_path: Path) -> None:
    """Before it the oracle misses facts; after it every fact, measure and contact is right, none twice."""
    async with with_losses(tmp_path) as world:
        for product in ("sakari", "users"):
            command = ("backfill", product, "--since", "30d", "--yes", "--json", *world.target)
            code, output, errors = await ran(*command)
            assert code == 0, errors
            plan, job = map(orjson.loads, output.splitlines())
            assert (plan["kind"], job["state"]) == ("plan", "done")
            assert 0.7 * plan["calls"] <= job["done"] <= 1.3 * plan["calls"]
        report = await world.verified()
    assert (report["mismatches"], report["uncovered"], report["exit"]) == (0, [], 0), report


async def test_a_backfill_killed_and_interrupted_counts_nothing_twice(tmp_path: Path) -> None:
    """After kill -9, and after Ctrl-C, `resume` goes on from the last page that was committed."""
    slow = {"PIPELINE_BACKFILL__SHARE": "0.03", "PIPELINE_POLL__PAGE_SIZE": "10"}
    async with with_losses(tmp_path) as world:
        command = ("backfill", "sakari", "--since", "30d", "--yes", "--json", *world.target)
        async with started(*command, log=tmp_path / "killed.log", **slow) as program:
            killed = await under_way(program, calls=20)
            program.signal(signal.SIGKILL)
            assert await program.ended() == -signal.SIGKILL
        resume = ("backfill", "resume", killed["id"], "--json", *world.target)
        async with started(*resume, log=tmp_path / "paused.log", **slow) as program:
            await under_way(program, calls=40)
            program.signal(signal.SIGINT)
            assert await program.ended() == PAUSED
        paused = program.lines[-1]
        code, output, errors = await ran(*resume)
        assert code == 0, errors
        jobs = [killed, paused, orjson.loads(output.splitlines()[-1])]
        assert [job["state"] for job in jobs] == ["running", "paused", "done"]
        published = [job["cursor"]["published"] for job in jobs]
        assert published == sorted(set(published))
        report = await world.verified()
    assert (report["mismatches"], report["uncovered"], report["exit"]) == (0, [], 0), report


async def under_way(program: Program, calls: int) -> dict[str, Any]:
    """The job as it tells its progress, once it has made so many *calls*."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            lines = [
                orjson.loads(line) for line in program.log.splitlines() if line.startswith('{"kind":"prog')
            ]
            if lines and lines[-1]["done"] >= calls:
                return dict(lines[-1])
            await asyncio.sleep(0.05)
