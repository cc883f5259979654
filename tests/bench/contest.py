"""
The tally by several stream processors, side by side: one broker, the same records in, the same records out.

Run it as ``python -m tests.bench.contest``. In each round every contestant runs once, as a process of its
own; what counts is the median of its rounds. All but the ceiling write to a topic whose timestamps the
broker sets: a run's time goes from its first output to its last, so that no start and no stop is in it, and
its outputs are read and checked. It prints one line of JSON for each run and contestant, then the ratios.
"""

import argparse
import asyncio
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import msgspec
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.broker_files import KAFKA_VERSION
from tests.bench import setting_up
from tests.bench.fill import KEYS, PARTITIONS, fill, make

EVENTS, FEW = "events", "events-few"
#: Of the records, one in so many is given to who needs minutes for all.
FEW_OF = 20
#: Headers that every output must have, at least.
HEADERS = 8
#: Records a second below which a run is given up.
SLOWEST = 200
OURS, QUIX, STREAMS, CEILING = "pipeline", "Quix Streams", "Kafka Streams", "ceiling (orjson)"


@final
class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what a contestant is told."""

    servers: str
    source: str
    target: str
    records: int
    name: str
    folder: str

    @property
    def arguments(self) -> list[str]:
        """As the peers' programs take them."""
        return [self.servers, self.source, self.target, str(self.records), self.name, self.folder]


@final
class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes part; *prepare* brings what is needed and returns how to make a run's command."""

    name: str
    prepare: Callable[[], Callable[[Job], list[str]]]
    few: bool = False
    writes: bool = True


def ours() -> Callable[[Job], list[str]]:
    """`pipeline bench tally`."""
    words = [str(Path(sys.executable).with_name("pipeline")), "bench", "tally", "--json"]
    return lambda job: [
        *words,
        *("--bootstrap", job.servers, "--topic", job.source, "--records", str(job.records)),
    ]


def python_peer(name: str) -> Callable[[], Callable[[Job], list[str]]]:
    """The program ``peers/<name>_tally.py`` in its environment."""

    def prepare() -> Callable[[Job], list[str]]:
        python = str(setting_up.environment(name))
        return lambda job: [python, str(setting_up.PEERS / f"{name}_tally.py"), *job.arguments]

    return prepare


def streams(threads: int) -> Callable[[], Callable[[Job], list[str]]]:
    """Kafka Streams with *threads* threads."""

    def prepare() -> Callable[[Job], list[str]]:
        words = setting_up.kafka_streams()
        return lambda job: [*words, *job.arguments, str(threads)]

    return prepare


def ceiling(parser: str, how: str = "batches") -> Callable[[], Callable[[Job], list[str]]]:
    """Reading and parsing with *parser*, nothing else."""
    words = [sys.executable, "-m", "tests.bench.ceiling"]
    return lambda: lambda job: [*words, job.servers, job.source, str(job.records), parser, how]


CONTESTANTS = (
    Contestant(name=CEILING, prepare=ceiling("orjson"), writes=False),
    Contestant(name="ceiling (msgspec)", prepare=ceiling("msgspec"), writes=False),
    Contestant(name="ceiling (orjson, async for)", prepare=ceiling("orjson", "singly"), writes=False),
    Contestant(name=OURS, prepare=ours),
    Contestant(name=f"{STREAMS} (1 thread)", prepare=streams(1)),
    Contestant(name=f"{STREAMS} (2 threads)", prepare=streams(2)),
    Contestant(name=QUIX, prepare=python_peer("quix")),
    Contestant(name="Faust", prepare=python_peer("faust"), few=True),
    Contestant(name="FastStream (no state, at least once)", prepare=python_peer("faststream"), few=True),
)


def expected_sum(records: int, keys: int) -> int:
    """The sum of all counts where *records* records are spread evenly over *keys* keys."""
    rounds, rest = divmod(records, keys)
    return keys * rounds * (rounds + 1) // 2 + rest * (rounds + 1)


async def looked_at(job: Job) -> dict[str, Any]:
    """What the run left: the seconds it took, and whether every output is there once and is right."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job.servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 2**20,
    )
    await consumer.start()
    try:
        places = [TopicPartition(job.target, number) for number in range(PARTITIONS)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        ids, count, total, attributed, times = set[str](), 0, 0, True, set[int]()
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    value = orjson.loads(record.value)
                    ids.add(value["eventId"])
                    total += value["count"]
                    attributed = attributed and len(record.headers) >= HEADERS
                times |= {record.timestamp for record in records}
                count += len(records)
    finally:
        await consumer.stop()
    keys = min(KEYS, job.records)
    right = (len(ids), count, total) == (job.records, job.records, expected_sum(job.records, keys))
    seconds = (max(times) - min(times)) / 1000 if times else 0.0
    return {"seconds": seconds, "right": right and attributed, "outputs": count}


async def run(contestant: Contestant, command: list[str], job: Job) -> dict[str, Any]:
    """One run; its line."""
    told: dict[str, Any] = {"contestant": contestant.name, "records": job.records}
    begun, before = time.monotonic(), _cpu_s()
    try:
        output = await spoken(command, timeout_s=60 + job.records / SLOWEST)
    except RuntimeError as error:
        return {**told, "right": False, "error": str(error)}
    # Of the whole process, its start and its end included.
    whole = {"whole_s": round(time.monotonic() - begun, 1), "cpu_s": round(_cpu_s() - before, 2)}
    found = await looked_at(job) if contestant.writes else {"seconds": float(output), "right": True}
    rate = round(job.records / found["seconds"]) if found["seconds"] and found["right"] else None
    return {**told, **found, "seconds": round(found["seconds"], 3), **whole, "records_per_s": rate}


async def spoken(command: list[str], timeout_s: float) -> str:
    """
    What *command* prints; its process is ended whatever happens.

    Raises:
        RuntimeError: it failed, with its last words, or took too long.
    """
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=quiet)
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise RuntimeError(f"not done after {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {(err or out).decode(errors='replace')[-500:]}")
    return out.decode()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def round_of(
    servers: str, commands: Mapping[str, Callable[[Job], list[str]]], records: int, number: int
) -> list[dict[str, Any]]:
    """Every contestant once; their lines, which it also prints."""
    lines = []
    for contestant in (each for each in CONTESTANTS if each.name in commands):
        source, count = (FEW, records // FEW_OF) if contestant.few else (EVENTS, records)
        target = f"{source}.out"
        folder = tempfile.mkdtemp(prefix="pipeline-bench-")
        name = f"tally-{uuid.uuid4().hex[:8]}"
        job = Job(servers=servers, source=source, target=target, records=count, name=name, folder=folder)
        await make(servers, target, PARTITIONS, **{"message.timestamp.type": "LogAppendTime"})
        try:
            line = await run(contestant, commands[contestant.name](job), job)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        await forget(servers, target)
        lines.append(told("run", round=number, **line))
    return lines


async def forget(servers: str, topic: str) -> None:
    """Delete *topic*."""
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        await client.delete_topics([topic])
    finally:
        await client.close()


def told(kind: str, **fields: Any) -> dict[str, Any]:
    """The line of *kind* with *fields*, printed."""
    line = {"kind": kind, **fields}
    print(orjson.dumps(line).decode(), flush=True)
    return line


def prepared(names: tuple[str, ...]) -> dict[str, Callable[[Job], list[str]]]:
    """How to run each contestant whose name holds one of *names*; who cannot run is told."""
    commands = {}
    for each in CONTESTANTS:
        if not any(name.lower() in each.name.lower() for name in names):
            continue
        try:
            commands[each.name] = each.prepare()
        except (RuntimeError, OSError) as error:
            told("contestant", contestant=each.name, records_per_s=None, error=str(error))
    return commands


def medians(lines: list[dict[str, Any]]) -> dict[str, int]:
    """The median of each contestant's rounds; none where one of them was wrong."""
    rates: dict[str, list[int | None]] = {}
    for line in lines:
        rates.setdefault(line["contestant"], []).append(line.get("records_per_s"))
    found = {}
    for name, each in rates.items():
        right = [rate for rate in each if rate is not None]
        median = round(statistics.median(right)) if len(right) == len(each) else None
        told("contestant", contestant=name, records_per_s=median, rounds=each)
        if median is not None:
            found[name] = median
    return found


def ratios(rates: Mapping[str, int]) -> dict[str, Any]:
    """Our rate, and how often that of the others it is; Kafka Streams with the better number of threads."""
    ours = rates.get(OURS)
    others = {
        "of_ceiling": rates.get(CEILING),
        "of_quix": rates.get(QUIX),
        "of_kafka_streams": max((rate for name, rate in rates.items() if STREAMS in name), default=None),
        "of_faust": rates.get("Faust"),
        "of_faststream": next((rate for name, rate in rates.items() if "FastStream" in name), None),
    }
    found = {name: round(ours / rate, 2) if ours and rate else None for name, rate in others.items()}
    return {"work": "tally", "records_per_s": ours, **found}


async def contest(records: int, rounds: int, names: tuple[str, ...]) -> None:
    """Fill, run, compare."""
    commands = await asyncio.to_thread(prepared, names)
    lines = []
    async with EmbeddedBroker() as broker:
        servers = broker.bootstrap_servers
        await fill(servers, EVENTS, records)
        await fill(servers, FEW, records // FEW_OF)
        for number in range(1, rounds + 1):
            lines += await round_of(servers, commands, records, number)
    told(
        "bench",
        records=records,
        partitions=PARTITIONS,
        keys=KEYS,
        kafka=KAFKA_VERSION,
        **ratios(medians(lines)),
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of contestants' names, by commas; default: all")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(KeyboardInterrupt):
        runner.run(contest(given.records, given.rounds, tuple(given.only.split(","))))
        return
    sys.exit(130)


if __name__ == "__main__":
    main()
