"""
One process of the pipeline, and its supervisor: whatever ends is started again, as an orchestrator would.

The process hangs on a guard (``broker_guard.py``), so that it ends with us, however we end.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from pipeline.runtime import broker_guard

__all__ = ["Supervised"]

#: From the end of one life to the next, in seconds; doubled after each that lasted less than `_SHORT_LIFE_S`.
_PAUSE_S: Final = (0.2, 3.0)
_SHORT_LIFE_S: Final = 3.0

#: A life begins within so long, in seconds.
_BEGIN_S: Final = 10.0
_LOOK_S: Final = 0.01

_LINE_BYTES: Final = 2**20


class Supervised:
    """
    *command*, again and again; its log goes into *folder*, and its stores into ``state``, a folder there.

    ``exits`` counts its ends by exit code, negative for a signal; ``told`` is the last line of JSON that it
    printed in the life that it lives now, empty before it is ready. ``slowest_stop_s`` is how long it took at
    most from being asked to stop to its end, in seconds.
    """

    def __init__(self, name: str, folder: Path, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.state = folder / name
        self.exits: Counter[int] = Counter()
        self.told: dict[str, str] = {}
        self.slowest_stop_s = 0.0
        self._asked: float | None = None  # when this life was asked to stop
        self._pid_file = folder / f"{name}.pid"
        self._command = tuple(command)
        self._variables = {**variables, "PIPELINE_RUNTIME__STATE_DIR": str(self.state)}
        self._losing_disk = False
        self._guard: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep it running until cancelled; then it is killed."""
        pause_s = _PAUSE_S[0]
        while True:
            begun = time.monotonic()
            await self._live()
            if self._losing_disk:
                self._losing_disk = False
                await asyncio.to_thread(shutil.rmtree, self.state, ignore_errors=True)
            lasted = time.monotonic() - begun
            pause_s = _PAUSE_S[0] if lasted > _SHORT_LIFE_S else min(pause_s * 2, _PAUSE_S[1])
            await asyncio.sleep(pause_s)

    async def struck(self, number: signal.Signals, *, disk: bool = False) -> int:
        """
        Send *number* to it, once it runs; with *disk* its stores are deleted before it lives again.

        Returns:
            The process that it was sent to.
        """
        async with asyncio.timeout(_BEGIN_S):
            while not (pid := self._pid()):  # noqa: ASYNC110 - the guard tells by a file
                await asyncio.sleep(_LOOK_S)
        self._losing_disk |= disk
        if number in {signal.SIGTERM, signal.SIGINT} and self._asked is None:
            self._asked = time.monotonic()
        _send(pid, number)
        return pid

    def thaw(self, pid: int) -> None:
        """Let *pid* go on, if it is still the one that runs."""
        if pid == self._pid():
            _send(pid, signal.SIGCONT)

    async def _live(self) -> None:
        """One life, from its start to its end."""
        self.told, self._asked = {}, None
        self._pid_file.write_bytes(b"")
        with self._pid_file.open("r+b") as pid_file, self.log.open("ab") as log:
            program = (sys.executable, "-I", "-S", broker_guard.__file__, str(pid_file.fileno()), "-")
            guard = await asyncio.create_subprocess_exec(
                *program,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | self._variables,
                pass_fds=(pid_file.fileno(),),
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        self._guard = guard
        try:
            await self._listened(guard)
            code = await guard.wait()
            self.exits[code if code < 128 else 128 - code] += 1
            if self._asked is not None:
                self.slowest_stop_s = max(self.slowest_stop_s, time.monotonic() - self._asked)
        finally:
            self._guard = None
            if guard.returncode is None:
                os.killpg(guard.pid, signal.SIGKILL)
                await guard.wait()

    async def _listened(self, guard: asyncio.subprocess.Process) -> None:
        """Note what it says until it ends."""
        assert guard.stdout is not None
        while line := await guard.stdout.readline():
            self.told = orjson.loads(line)

    def _pid(self) -> int:
        """The process that runs now; 0 if none does."""
        if self._guard is None or self._guard.returncode is not None:
            return 0
        return int(self._pid_file.read_bytes() or 0)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has just ended by itself
