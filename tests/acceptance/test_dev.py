"""`pipeline dev` as a user starts it: everything on one machine, judged by the oracle."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.programs import Program, descendants, running, started

SECONDS = 25
RATE = 100
DRAINED_S = 150.0

#: What the issue that the project began with asks of the last line.
PROMISED = {
    "webhooks_sent",
    "webhooks_accepted",
    "webhooks_duplicated",
    "sakari_events",
    "users_events",
    "polls",
    "contacts_enriched",
    "activity_enriched",
    "metrics_windows",
    "statistics_posted",
    "dead_letters",
    "late",
    "latency_ms",
    "first_posted_s",
    "oracle",
}


async def test_a_whole_run_agrees_with_the_oracle(tmp_path: Path) -> None:
    """The last line is the summary: every number was seen, compared with the ledger and found equal."""
    command = ("dev", "--exit-after", str(SECONDS), "--rate", str(RATE), "--folder", str(tmp_path / "dev"))
    async with started(*command, "--json", log=tmp_path / "log") as program:
        code = await program.ended(SECONDS + DRAINED_S)
    assert code in {0, 1}, program.log[-2000:]
    summary = program.lines[-1]
    oracle: dict[str, Any] = summary["oracle"]
    assert summary["kind"] == "summary"
    assert set(summary) >= PROMISED
    assert oracle["mismatches"] == 0, oracle["examples"]
    assert oracle["uncovered"] == []
    assert oracle["compared"] >= 1_000
    assert min(summary["statistics_posted"], summary["late"], oracle["closed_windows"]) > 0
    assert code == 0


async def test_the_first_statistic_is_posted_within_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newcomer sees the work end to end while still watching; Ctrl-C leaves nothing behind."""
    command = ("dev", "--ephemeral", "--folder", str(tmp_path / "dev"), "--json")
    async with started(*command, log=tmp_path / "log") as program:
        posted = await program.line("first_posted", 60.0)
        started_by_it = descendants(program.pid)
        assert await _interrupted(program) == 0
        await _gone(started_by_it)
    with capsys.disabled():
        print(f"\nfirst statistic posted after {posted['seconds']} s")  # noqa: T201 - a figure to be seen
    assert posted["seconds"] <= 60
    assert len(started_by_it) >= 2  # the sandbox, Kafka and its guard


async def test_a_run_that_is_interrupted_says_so(tmp_path: Path) -> None:
    """Whoever waits for a comparison learns from the exit code that there was none."""
    command = ("dev", "--ephemeral", "--exit-after", "600", "--folder", str(tmp_path / "dev"), "--json")
    async with started(*command, log=tmp_path / "log") as program:
        await program.line("kafka")
        started_by_it = descendants(program.pid)
        assert await _interrupted(program) == 130
        await _gone(started_by_it)
    assert "summary" not in {line["kind"] for line in program.lines}


async def _interrupted(program: Program) -> int:
    program.signal(signal.SIGINT)
    return await program.ended()


async def _gone(pids: set[int]) -> None:
    async with asyncio.timeout(10):
        while running(pids):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
