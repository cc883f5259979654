"""The supervisor of a process: what ends is started again, and nothing outlives it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.chaos.supervised import Supervised

DEADLINE_S = 20.0

#: Makes a file among its stores, says that it is ready, and waits; ends with 7 when told to stop.
TOY = """
import os, pathlib, signal, sys, time
state = pathlib.Path(os.environ["PIPELINE_RUNTIME__STATE_DIR"])
found = state.is_dir()
state.mkdir(exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print('{"kind": "ready", "pid": "%d", "kept": "%s"}' % (os.getpid(), found), flush=True)
while True:
    time.sleep(60)
"""


@asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[Supervised]:
    """The toy under its supervisor, once it is ready."""
    one = Supervised("toy", folder, (sys.executable, "-c", TOY), {})
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(one.run())
        try:
            await until(lambda: bool(one.told))
            yield one
        finally:
            life.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Return when *holds* does, in time."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.01)


async def reborn(one: Supervised, pid: str) -> None:
    """Return when another process than *pid* is ready."""
    await until(lambda: one.told.get("pid", pid) != pid)


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_was_killed_lives_again_with_its_stores(tmp_path: Path) -> None:
    """A new process finds what the old one kept, and the end is counted by its signal."""
    async with supervised(tmp_path) as one:
        pid = one.told["pid"]
        assert await one.struck(signal.SIGKILL) == int(pid)
        await reborn(one, pid)
        assert one.told["kept"] == "True"
        assert one.exits == {-signal.SIGKILL: 1}


async def test_a_lost_disk_is_lost_before_the_next_life(tmp_path: Path) -> None:
    """The new process begins with nothing."""
    async with supervised(tmp_path) as one:
        pid = one.told["pid"]
        await one.struck(signal.SIGKILL, disk=True)
        await reborn(one, pid)
        assert one.told["kept"] == "False"


async def test_a_signal_reaches_the_process_itself(tmp_path: Path) -> None:
    """It ends as it wants to, with its own exit code."""
    async with supervised(tmp_path) as one:
        pid = one.told["pid"]
        await one.struck(signal.SIGTERM)
        await reborn(one, pid)
        assert one.exits == {7: 1}
        assert 0 < one.slowest_stop_s < DEADLINE_S


async def test_a_strike_in_between_waits_for_the_next_life(tmp_path: Path) -> None:
    """The second kill of a burst strikes what has just begun."""
    async with supervised(tmp_path) as one:
        first = await one.struck(signal.SIGKILL)
        await until(lambda: bool(one.exits))
        assert await one.struck(signal.SIGKILL) != first


async def test_nothing_outlives_the_supervisor(tmp_path: Path) -> None:
    """Also a frozen process is gone when the supervisor has ended."""
    async with supervised(tmp_path) as one:
        pid = await one.struck(signal.SIGSTOP)
        assert runs(pid)
    await until(lambda: not runs(pid))


async def test_only_the_frozen_process_is_thawed(tmp_path: Path) -> None:
    """A thaw that comes after its death does not touch the next life."""
    async with supervised(tmp_path) as one:
        frozen = await one.struck(signal.SIGSTOP)
        await one.struck(signal.SIGKILL)
        await reborn(one, str(frozen))
        one.thaw(frozen)
        assert runs(int(one.told["pid"]))
