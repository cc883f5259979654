"""What the signals do to a command, whatever it hangs in."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import asyncio, sys
from pipeline.cli.stopping import stopped_by_signals

async def deaf():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled", flush=True)

async def work(how):
    stopped = asyncio.Event()
    def stop():
        print("stopping", flush=True)
        stopped.set()
    deadline_s = {"deaf": 60.0, "late": 1.0}.get(how)
    with stopped_by_signals(None if how == "untold" else stop, deadline_s):
        print("begun", flush=True)
        await stopped.wait()
        if how != "told":
            await (deaf() if deadline_s else asyncio.sleep(60))
    print("ended", flush=True)

try:
    asyncio.run(work(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def ended(how: str, *numbers: signal.Signals) -> tuple[int, list[str], float]:
    """Exit code, lines and duration of a program that gets *numbers*, each when it has said something."""
    lines: list[str] = []
    begun = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", PROGRAM, how], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for number in numbers:
            lines.append(child.stdout.readline().strip())
            begun = time.monotonic()
            child.send_signal(number)
        output, _ = child.communicate(timeout=60)
    return child.returncode, [*lines, *output.split()], time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_tells_the_block_to_stop(number: signal.Signals) -> None:
    """It ends in order, and what follows it is done."""
    assert ended("told", number)[:2] == (0, ["begun", "stopping", "ended"])


def test_the_first_signal_cancels_a_block_that_cannot_be_told() -> None:
    """Where there is nobody to tell the block is left, and that is no failure."""
    assert ended("untold", signal.SIGTERM)[:2] == (0, ["begun", "ended"])


def test_a_stop_that_hangs_is_ended_at_its_deadline() -> None:
    """Nobody has to send a second signal to a process that does not do as it was told."""
    code, lines, seconds = ended("late", signal.SIGTERM)
    assert (code, lines, seconds >= 1) == (1, ["begun", "stopping"], True)


def test_the_second_signal_cancels_a_stop() -> None:
    """The block is left where it stands, which the exit code tells."""
    assert ended("slow", signal.SIGTERM, signal.SIGINT)[:2] == (130, ["begun", "stopping"])


def test_the_second_signal_ends_what_cannot_be_cancelled() -> None:
    """A second later there is no process any more."""
    code, lines, _ = ended("deaf", signal.SIGTERM, signal.SIGINT)
    assert (code, lines) == (130, ["begun", "stopping", "cancelled"])


def test_a_process_whose_event_loop_hangs_is_ended() -> None:
    """Nobody can ask it anything: it says where it hangs, and its exit code that it failed."""
    program = """
import asyncio, time
from pipeline.cli.stopping import beating

async def endless():
    while True:
        time.sleep(1)

async def work():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beating(1.5))
        tasks.create_task(endless())

asyncio.run(work())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "in endless" in done.stderr


def test_a_process_whose_event_loop_runs_is_left_alone() -> None:
    """Beats in time end nothing, and none is left when the beating ends."""
    program = """
import asyncio, time
from pipeline.cli.stopping import beating

async def work():
    try:
        async with asyncio.timeout(3):
            await beating(1.5)
    except TimeoutError:
        time.sleep(2)

asyncio.run(work())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
