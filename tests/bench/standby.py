"""
Seconds until a partition's heir processes its first record, with and without a standby copy, side by side.

Run it as ``python -m tests.bench.standby --keys 1000000``. One partition whose state is that many keys; its
owner and its heir are processes of their own. The owner is killed, or told to stop in order, under a
trickle of records. ``first_s`` counts from the group's reassignment to the heir's first committed record,
``pause_s`` from the strike (after a kill it holds the session's timeout). It prints one line of JSON.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import uvloop

from pipeline.effects import Unit
from pipeline.logs import configure
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.worker import Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from tests.bench.restore import NAME, STAGE, cluster_of, prepare, processed, send

#: The strikes, and what the owner is sent.
STRIKES = {"kill": signal.SIGKILL, "leave": signal.SIGTERM}
#: Longest that any step may take, in seconds.
DEADLINE_S = 300.0
_POLL_S = 0.002
_TRICKLE_S = 0.1


def member(given: argparse.Namespace) -> Cluster:
    """What a process of the group has; a killed one is missed after 6 s."""
    settings = RuntimeSettings(
        state_dir=Path(given.folder),
        standby=given.standby,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )
    cluster = cluster_of(given.servers, Path(given.folder))
    connection = Connection(KafkaSettings(bootstrap_servers=given.servers), settings)
    return msgspec.structs.replace(cluster, settings=settings, connection=connection)


def metric(cluster: Cluster, name: str, **labels: str) -> float | None:
    """A figure of this process."""
    return cluster.metrics.registry.get_sample_value(f"pipeline_{name}", {"stage": NAME, **labels})


def say(**told: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(orjson.dumps(told).decode() + "\n")
    sys.stdout.flush()


async def work(given: argparse.Namespace) -> None:
    """The owner works until it is struck; the heir until it has processed its first record."""
    cluster = member(given)
    worker = Worker([Unit(stage=STAGE)], cluster)
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.run(), name="worker")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.until_ready()
        if given.part == "heir":
            await inherit(cluster, given)
            worker.stop()
        else:
            say(ready=time.time())
        await working


async def inherit(cluster: Cluster, given: argparse.Namespace) -> None:
    """Wait to be warm, then for the partition, then for its first record; say when each was."""
    await until(lambda: not given.standby or metric(cluster, "standby_lag_records", partition="0") == 0)
    say(ready=time.time())
    before = metric(cluster, "rebalances_total")
    await until(lambda: metric(cluster, "rebalances_total") != before)
    assigned = time.time()
    await until(lambda: processed(cluster) > 0)
    say(assigned=assigned, first=time.time())


async def until(holds: Callable[[], bool]) -> None:
    """Return when *holds* does."""
    while not holds():  # noqa: ASYNC110 - what is waited for are figures, which tell nobody
        await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def child(
    part: str, given: argparse.Namespace, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of the group that is ready; killed at the end if it still runs."""
    options = {"part": part, "servers": given.servers, "folder": folder, "standby": given.standby}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.standby", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        await told(process)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(process: asyncio.subprocess.Process) -> dict[str, float]:
    """The next line that *process* says."""
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        said: dict[str, float] = orjson.loads(await process.stdout.readline())
    return said


async def trickle(given: argparse.Namespace) -> None:
    """Send a record every now and then, until cancelled."""
    while True:
        await send(given.servers, given.keys, 1, seed=time.time_ns())
        await asyncio.sleep(_TRICKLE_S)


async def inherited(given: argparse.Namespace, strike: str, folder: Path) -> dict[str, float]:
    """Strike the owner once; the seconds that it took."""
    async with (
        child("owner", given, folder / "owner") as owner,
        child("heir", given, folder / "heir") as heir,
    ):
        trickling = asyncio.create_task(trickle(given), name="trickle")
        struck = time.time()
        owner.send_signal(STRIKES[strike])
        said = await told(heir)
        trickling.cancel()
        await asyncio.wait((trickling,))
    return {"first_s": said["first"] - said["assigned"], "pause_s": said["first"] - struck}


async def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures, medians of the repeats."""
    await prepare(given.servers, given.keys)
    runs: dict[str, list[dict[str, float]]] = {}
    for repeat in range(given.repeats):
        for strike in STRIKES:
            for given.standby in (0, 1):
                case = f"{strike}_{'with' if given.standby else 'without'}_standby"
                seconds = await inherited(given, strike, folder / f"{case}{repeat}")
                runs.setdefault(case, []).append(seconds)
    return {
        "kind": "bench",
        "work": "standby",
        "keys": given.keys,
        **{
            f"{case}_{name}": round(statistics.median(each[name] for each in seconds), 2)
            for case, seconds in runs.items()
            for name in ("first_s", "pause_s")
        },
    }


async def run(given: argparse.Namespace) -> None:
    """One part in this process, or all of them in processes of their own."""
    if given.part:
        await work(given)
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        async with EmbeddedBroker() as broker:
            given.servers = broker.bootstrap_servers
            say(**await measured(given, Path(folder)))


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    for hidden, kind in (("part", str), ("servers", str), ("folder", str), ("standby", int)):
        parser.add_argument(f"--{hidden}", type=kind, default=kind(), help=argparse.SUPPRESS)
    given = parser.parse_args()
    configure("info" if given.part else "warning")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(given))


if __name__ == "__main__":
    main()
