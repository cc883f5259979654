"""
Every benchmark one after another: ``python -m tests.bench``, or only ``--parts peers,restore``.

Each part is a process of its own that prints lines of JSON, kept in ``.pipeline/bench/<part>.jsonl``, its log
beside it. They replace what it told last time in ``.pipeline/bench/results.json``, so that a run can be ended
at any time and gone on with later. Then come the
table of all figures, and, where every part has been measured, the same table in the README. A slow machine
fails nothing: the exit code is 1 only where a part could not be measured.
"""

import argparse
import asyncio
import importlib.util
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import msgspec
import orjson

from tests.bench.table import RESULTS, Measured, Results, load, printed, put_into_readme, save

#: What a part that is told to end may take, in seconds: it stops its Kafka.
_END_S = 60.0


@final
class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark: its module, what it is given, what it is given to try it out, its bound in seconds."""

    module: str
    given: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    timeout_s: float = 600


PARTS: Mapping[str, Part] = {
    "peers": Part(
        module="tests.bench.contest", quick=("--records", "20000", "--rounds", "1"), timeout_s=1800
    ),
    "whole": Part(
        module="tests.bench.whole_pipeline", given=("--records", "300000"), quick=("--records", "10000")
    ),
    "latency": Part(module="tests.bench.latency", quick=("--seconds", "5", "--warm-up", "3")),
    "receiver": Part(module="tests.bench.receiver", quick=("--seconds", "2", "--rounds", "1")),
    "restore": Part(module="tests.bench.restore", quick=("--keys", "50000", "--records", "5000")),
    "standby": Part(module="tests.bench.standby", quick=("--keys", "50000")),
}


class PartFailedError(Exception):
    """A part could not be measured."""


async def measure(name: str, part: Part, *, quick: bool) -> Measured:
    """
    Run *part* and tell of its progress.

    Raises:
        PartFailedError: it failed, took too long, or told no figures.
    """
    if importlib.util.find_spec(part.module) is None:
        raise PartFailedError(f"there is no {part.module}")
    begun, lines = time.monotonic(), list[dict[str, Any]]()
    log = RESULTS.with_name(f"{name}{'-quick' * quick}.log")
    async with _started(part, log, quick=quick) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(part.timeout_s):
                async for text in process.stdout:
                    if text.startswith(b"{"):
                        lines.append(orjson.loads(text))
                        log.with_suffix(".jsonl").write_bytes(b"".join(map(_encoded, lines)))
                        _tell(f"{name}: {_short(lines[-1])}", time.monotonic() - begun)
                code = await process.wait()
        except TimeoutError:
            raise PartFailedError(f"not done after {part.timeout_s:.0f} s; see {log}") from None
    if code or not any(line["kind"] == "bench" for line in lines):
        raise PartFailedError(f"ended with exit code {code}: {_last(log)}; see {log}")
    return Measured(at=time.strftime("%Y-%m-%d"), seconds=round(time.monotonic() - begun), lines=lines)


@asynccontextmanager
async def _started(part: Part, log: Path, *, quick: bool) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of *part*, whose log goes to *log*; it is ended whatever happens."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", part.module, *(part.quick if quick else part.given)),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C reaches it once, from here
        )
        try:
            yield process
        finally:
            await _ended(process)


def _encoded(line: Mapping[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End *process* and what it started: in order, else at once."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _short(line: Mapping[str, Any]) -> str:
    """What is worth telling of *line* while one waits."""
    hidden = {"kind", "work", "outputs", "right", "rounds"}
    return "  ".join(f"{name} {value}" for name, value in line.items() if name not in hidden)


def _tell(text: str, seconds: float) -> None:
    print(f"{seconds:7.1f} s  {text}", file=sys.stderr, flush=True)


async def run(names: list[str], *, quick: bool) -> int:
    """Measure the parts of *names*; the exit code. SIGTERM is as Ctrl-C."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    file = RESULTS.with_name("results-quick.json") if quick else RESULTS
    results, failed = load(file), []
    for name in names:
        _tell(f"{name} begins", 0.0)
        try:
            measured = await measure(name, PARTS[name], quick=quick)
        except PartFailedError as error:
            failed.append(f"{name}: {error}")
            _tell(f"{name}: NOT MEASURED: {error}", 0.0)
        else:
            results = Results(parts={**results.parts, name: measured})
            save(file, results)
    print(printed(results), flush=True)
    if quick:
        print("(tried out with few records: these figures say nothing)")
    else:
        print(put_into_readme(results, list(PARTS)))
    print("\n".join(f"not measured: {each}" for each in failed))
    return 1 if failed else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default="", help=f"by commas, of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="try everything out with few records")
    given = parser.parse_args()
    names = [name for name in given.parts.split(",") if name] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"--parts: {', '.join(unknown)}; allowed: {', '.join(PARTS)}")
    try:
        return asyncio.run(run(names, quick=given.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("ended; what was measured is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
