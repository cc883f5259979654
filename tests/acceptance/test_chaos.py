"""`pipeline chaos` as a user starts it, in a form of less than three minutes."""

import asyncio
import signal
from pathlib import Path

import pytest

from pipeline.chaos.schedule import Kind, schedule
from tests.acceptance.programs import descendants, running, started

MINUTES = 0.8
SEED = 12
#: Starting and draining are quick on a machine of one's own, and not on a shared one.
DEADLINE_S = 540.0


def test_the_short_form_holds_every_kind() -> None:
    """What the next test strikes with is all there is."""
    assert {fault.kind for fault in schedule(SEED, MINUTES * 60)} == set(Kind)


@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_doubled_under_fire(tmp_path: Path) -> None:
    """Whatever fails, each fact is told once, each number is right, and the pipeline comes back by itself."""
    command = (
        "chaos",
        "--minutes",
        str(MINUTES),
        "--seed",
        str(SEED),
        "--rate",
        "50",
        "--folder",
        str(tmp_path / "run"),
    )
    async with started(*command, "--json", log=tmp_path / "log") as program:
        code = await program.ended(DEADLINE_S)
    summary = program.lines[-1]
    assert summary["kind"] == "summary", program.log[-2000:]
    assert (summary["lost"], summary["doubled"], summary["mismatches"], code) == (0, 0, 0, 0), summary
    assert summary["compared"] > 20_000
    assert set(summary["faults"]) == set(Kind)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_run_that_is_ended_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Brokers, sandbox and processes end with it, also where it had no chance to end them."""
    command = ("chaos", "--minutes", "10", "--folder", str(tmp_path / "run"), "--json")
    async with started(*command, log=tmp_path / "log") as program:
        await program.line("fault", 120.0)
        started_by_it = descendants(program.pid)
        program.signal(number)
        code = await program.ended()
        await _gone(started_by_it)
    assert code == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert len(started_by_it) >= 3 * 2 + 1 + 2 * 2  # nodes and processes with guards, one struck; the sandbox
    assert "summary" not in {line["kind"] for line in program.lines}


async def _gone(pids: set[int]) -> None:
    async with asyncio.timeout(20):
        while running(pids):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
