"""A condition in CEL that records are held against, in a process of its own (`pipeline.tail.judge`)."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, final

import msgspec

from pipeline.codec import Record
from pipeline.errors import ConfigError
from pipeline.logs import mask

__all__ = ["MAX_LENGTH", "Condition", "Undecided", "holding"]

#: Characters of a condition; what a person writes is a tenth of it.
MAX_LENGTH: Final = 4_096

#: Seconds until the process is there, and for a batch: a slow machine takes its time, a hanging one does not.
START_S: Final = 30.0
BATCH_S: Final = 60.0

#: Records, and bytes of their values, that are judged at a time.
_BATCH: Final = 500
_BATCH_BYTES: Final = 1 << 20

#: What the library tells of the place of an error: line and column, from 1.
_PLACE = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")

#: The signals by which the kernel ends a process that takes too much: see `pipeline.tail.judge`.
_TOO_SLOW: Final = (-signal.SIGPROF,)


@final
class Undecided(msgspec.Struct):
    """Records that a condition could say nothing of; the *first* of them, and why."""

    count: int = 0
    first: str = ""
    why: str = ""


@asynccontextmanager
async def holding(condition: str) -> AsyncIterator["Condition"]:
    """
    *condition*, ready to judge, until the end of the block.

    Raises:
        ConfigError: it is none, with the place where; it can give nothing but true or false.
    """
    if len(condition) > MAX_LENGTH:
        raise ConfigError(f"--where: {len(condition)} characters; allowed: up to {MAX_LENGTH}")
    program = str(Path(__file__).with_name("judge.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )
    judging = Condition(condition, process)
    try:
        await judging.begin()
        yield judging
    finally:
        await judging.end()


class Condition:
    """Says of records whether the condition holds for them."""

    def __init__(self, condition: str, process: Process) -> None:
        self.undecided = Undecided()
        self._condition = condition
        self._process = process

    async def begin(self) -> None:
        """
        Give the process its condition.

        Raises:
            ConfigError: it cannot be used.
        """
        refused = await self._asked(self._condition, "when it was read", START_S)
        if refused:
            raise ConfigError(f"--where: {told(self._condition, refused)}")

    async def matching(self, records: Sequence[Record]) -> list[Record]:
        """
        Those of *records* for which the condition holds; what it cannot decide is counted and left out.

        Raises:
            ConfigError: it took too long, or too much memory.
        """
        found: list[Record] = []
        for batch in _batches(records):
            verdicts, first, why = await self._asked(batch, _places(batch), BATCH_S)
            found += [each for each, verdict in zip(batch, verdicts, strict=True) if verdict == 1]
            if first >= 0:
                self._note(batch[first], why, verdicts.count(2))
        return found

    async def end(self) -> None:
        """End the process, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()

    async def _asked(self, content: Any, where: str, timeout_s: float) -> Any:
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        frame = msgspec.msgpack.encode(content)
        try:
            async with asyncio.timeout(timeout_s):
                sink.write(len(frame).to_bytes(4) + frame)
                await sink.drain()
                length = int.from_bytes(await source.readexactly(4))
                return msgspec.msgpack.decode(await source.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            why = "took too long" if await self._process.wait() in _TOO_SLOW else "needs too much memory"
        except TimeoutError:
            why = "took too long"
        raise ConfigError(f"--where: it {why} {where}, and was ended; make it simpler")

    def _note(self, record: Record, why: str, count: int) -> None:
        if not self.undecided.count:
            self.undecided.first = _place(record)
            self.undecided.why = mask(_reason(why))
        self.undecided.count += count


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """*records* in pieces that are judged within a bounded time."""
    begin = size = 0
    for index, record in enumerate(records):
        size += len(record.value or b"")
        if size > _BATCH_BYTES or index - begin == _BATCH:
            yield records[begin : max(index, begin + 1)]
            begin, size = max(index, begin + 1), len(record.value or b"")
    if begin < len(records):
        yield records[begin:]


def told(condition: str, refused: str) -> str:
    """What is wrong with *condition*: what the library says, the line, and a mark below the place."""
    found = _PLACE.search(refused)
    lines = condition.splitlines()
    if found is None or not 0 < int(found[1]) <= len(lines):
        return _reason(refused)
    line, column = int(found[1]), int(found[2])
    place = f"column {column}" if len(lines) == 1 else f"line {line}, column {column}"
    return f"{place}: {found[3]}\n    {lines[line - 1]}\n    {' ' * (column - 1)}^"


def _reason(error: str) -> str:
    """*error* without the codes that the library puts around it."""
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", error.splitlines()[0].strip())
    return _PLACE.sub(r"\3", text)


def _places(batch: Sequence[Record]) -> str:
    first, last = _place(batch[0]), _place(batch[-1])
    return f"at {first}" if len(batch) == 1 else f"at one of {first} to {last}"


def _place(record: Record) -> str:
    return f"{record.partition}:{record.offset}"
