"""
Keys per second of a cold restore, seconds to the first record of a restart with a kept disk, and memory.

Run it as ``python tests/bench/restore.py --keys 1000000``. One partition; a transactional producer writes the
changelog, then three processes follow one another: one only reads the changelog with aiokafka (the ceiling),
a worker with an empty disk, a worker with the disk that the one before has left. Both workers process
``--records`` records over all keys after their restore. It prints one line of JSON.
"""

import argparse
import asyncio
import cProfile
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import msgspec
import orjson
import uvloop
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from pipeline.codec import Codec, Output, Places
from pipeline.effects import Unit
from pipeline.events import Tick, ce_type
from pipeline.headers import encoded
from pipeline.instants import Time
from pipeline.logs import configure, mask
from pipeline.runtime import admin, names, topic_plan
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.reader import warmed
from pipeline.runtime.transaction import TransactionalProducer
from pipeline.runtime.worker import Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.stage import Emit, Event, Outcome, Put, Stage, Store, Stores
from pipeline.topics import Topic, Topics, load

APPLICATION = "bench"
INPUT, OUTPUT, NAME = "restore.in", "restore.out", "restore"
#: Records of one transaction: what a task writes under load.
TRANSACTION = 2_000
#: Longest that a worker may take, in seconds.
DEADLINE_S = 600.0


@final
class Tally(msgspec.Struct, frozen=True):
    """A value of about 100 bytes."""

    count: int
    text: str


TALLIES: Store[Tally] = Store("tallies", Tally)


def step(read: Stores, event: Event[Any]) -> Outcome:
    """Count the key and pass the record on."""
    tally = read.get(TALLIES, event.key) or Tally(0, "")
    counted = Tally(tally.count + 1, tally.text)
    return Outcome(writes=(Put(TALLIES, event.key, counted),), emit=(Emit(OUTPUT, event.key, event.value),))


STAGE = Stage(name=NAME, inputs=(INPUT,), outputs=(OUTPUT,), stores=(TALLIES,), step=step)
CHANGELOG = names.changelog(APPLICATION, NAME, TALLIES)


def key_of(number: int) -> str:
    """A key of 20 bytes."""
    return f"contact:{number:012d}"


def topics() -> Topics:
    """The stage's topics."""
    real = load()
    made = [_topic(INPUT), _topic(OUTPUT), _topic(names.redrive(NAME), types=("raw",))]
    return Topics([*made, real["dead-letters"]], real.profiles.values(), real.changelogs)


def _topic(name: str, types: tuple[str, ...] = (ce_type(Tick),)) -> Topic:
    return Topic(
        name=name,
        description=name,
        owner="bench",
        visibility="public",
        key="text",
        types=types,
        cleanup=("delete",),
        retention_ms=86_400_000,
        partitions=1,
    )


def cluster_of(servers: str, folder: Path) -> Cluster:
    """What a process of its own has."""
    settings = RuntimeSettings(state_dir=folder)
    connection = Connection(KafkaSettings(bootstrap_servers=servers), settings)
    codec = Codec(topics(), 1, APPLICATION)
    return Cluster(
        id="bench",
        application_id=APPLICATION,
        partitions=1,
        connection=connection,
        codec=codec,
        settings=settings,
        metrics=Metrics(),
        mask=mask,
    )


async def prepare(servers: str, keys: int) -> None:
    """Make the topics, and write *keys* keys to the changelog, in no order."""
    connection = cluster_of(servers, Path()).connection
    profile = msgspec.structs.replace(topics().profile("dev"), partitions=1)
    await admin.ensure(connection.common, topic_plan.wanted(topics(), profile, APPLICATION, (STAGE,)))
    await warmed(connection)
    numbers = list(range(keys))
    random.Random(7).shuffle(numbers)
    encode, draw = msgspec.msgpack.Encoder().encode, random.Random(7)
    values = [(key_of(n).encode(), encode(Tally(1, draw.randbytes(42).hex()))) for n in numbers]
    await _write(connection, [Output(CHANGELOG, 0, 0, key, value, []) for key, value in values])


async def send(servers: str, keys: int, records: int, seed: int) -> None:
    """Write *records* records over all *keys* to the input."""
    connection, draw = cluster_of(servers, Path()).connection, random.Random(seed)
    now, headers = time.time_ns() // 1_000_000, [("ce_type", ce_type(Tick).encode())]
    value = msgspec.json.encode(Tick(Time("2026-01-01T00:00:00.000Z")))
    drawn = [key_of(draw.randrange(keys)).encode() for _ in range(records)]
    await _write(connection, [Output(INPUT, 0, now, key, value, headers) for key in drawn])


async def _write(connection: Connection, outputs: list[Output]) -> None:
    producer = TransactionalProducer(connection, "bench-fill", "bench-fill", 60)
    await producer.start()
    for first in range(0, len(outputs), TRANSACTION):
        places: Places = {}
        for output in outputs[first : first + TRANSACTION]:
            sent = (output.timestamp, output.key, output.value, encoded(output.headers))
            places.setdefault((output.topic, output.partition), []).append(sent)
        await producer.commit(places, {})
    await producer.drop()


async def ceiling(cluster: Cluster) -> dict[str, Any]:
    """Read the changelog as aiokafka gives it, nothing else."""
    place, count = TopicPartition(CHANGELOG, 0), 0
    consumer = cluster.connection.reader()
    await consumer.start()
    consumer.assign([place])
    await consumer.seek_to_beginning(place)
    end = (await consumer.end_offsets([place]))[place]
    begun, cpu = time.perf_counter(), time.process_time()
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            count += len(records)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    await consumer.stop()
    return {"records": count, "seconds": seconds, "cpu_s": cpu_s}


async def work(cluster: Cluster, begun: float, records: int) -> dict[str, Any]:
    """Run the worker until it has processed *records*; *begun* is when its process was started."""
    worker, first_s, cpu, cpu_s = Worker([Unit(stage=STAGE)], cluster), 0.0, time.process_time(), 0.0
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(DEADLINE_S):
            working = tasks.create_task(worker.run(), name="worker")
            while (count := processed(cluster)) < records:
                first_s = first_s or (time.time() - begun if count else 0.0)
                cpu_s = cpu_s or (0.0 if worker.unready else time.process_time() - cpu)
                await asyncio.sleep(0.002)
            first_s = first_s or time.time() - begun
            told = memory()
            worker.stop()
            await working
    restored = [each for each in logs if each["event"] == "store.restored"]
    return {**told, "first_s": first_s, "cpu_s": cpu_s, **(restored[0] if restored else {})}


def processed(cluster: Cluster) -> float:
    """Records that the worker has committed."""
    return cluster.metrics.registry.get_sample_value("pipeline_records_total", {"stage": NAME}) or 0.0


def memory() -> dict[str, float]:
    """MB in use by this process, now and at most."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {line[0]: int(line[1]) for line in lines if line and line[0] in ("VmRSS:", "VmHWM:")}
    return {"rss_mb": found["VmRSS:"] / 1024, "peak_rss_mb": found["VmHWM:"] / 1024}


def child(part: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run *part* in a process of its own; what it tells."""
    options = {"servers": given.servers, "folder": given.folder, "begun": time.time()}
    options |= {"records": given.records}
    options |= {"profile": f"{given.profile}.{part}"} if given.profile else {}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "--part", part, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=DEADLINE_S)
    told: dict[str, Any] = orjson.loads(done.stdout)
    return told


async def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    await prepare(given.servers, given.keys)
    await send(given.servers, given.keys, given.records, seed=1)
    read = await asyncio.to_thread(child, "ceiling", given)
    cold = await asyncio.to_thread(child, "cold", given)
    await send(given.servers, given.keys, given.records, seed=2)
    kept = await asyncio.to_thread(child, "kept", given)
    assert read["records"] >= given.keys, read
    per_s, ceiling_per_s = cold["records"] / cold["seconds"], read["records"] / read["seconds"]
    return {
        "kind": "bench",
        "work": "restore",
        "keys": given.keys,
        "cold_keys_per_s": round(per_s),
        "ceiling_records_per_s": round(ceiling_per_s),
        "share_of_ceiling": round(per_s / ceiling_per_s, 3),
        "cold_first_record_s": round(cold["first_s"], 2),
        "cold_cpu_us_per_key": round(cold["cpu_s"] / cold["records"] * 1e6, 2),
        "ceiling_cpu_us_per_record": round(read["cpu_s"] / read["records"] * 1e6, 2),
        "cold_rss_mb": round(cold["rss_mb"]),
        "cold_peak_rss_mb": round(cold["peak_rss_mb"]),
        "kept_restored": kept.get("records", 0),
        "kept_first_record_s": round(kept["first_s"], 2),
        "kept_rss_mb": round(kept["rss_mb"]),
        "kept_peak_rss_mb": round(kept["peak_rss_mb"]),
    }


@contextmanager
def profiled(path: str) -> Iterator[None]:
    """Write cProfile's figures of the block to *path*, where it is given."""
    profiler = cProfile.Profile() if path else None
    if profiler is None:
        yield
        return
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(path)


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """One part in this process, or all of them in processes of their own."""
    if given.part:
        cluster = cluster_of(given.servers, Path(given.folder))
        with profiled(given.profile):
            if given.part == "ceiling":
                return await ceiling(cluster)
            return await work(cluster, given.begun, given.records)
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        async with EmbeddedBroker() as broker:
            given.servers, given.folder = broker.bootstrap_servers, folder
            return await measured(given)


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=50_000, help="processed by each worker")
    parser.add_argument("--profile", default="", help="write cProfile's figures to files of this name")
    for hidden, kind in (("part", str), ("servers", str), ("folder", str), ("begun", float)):
        parser.add_argument(f"--{hidden}", type=kind, default=kind(), help=argparse.SUPPRESS)
    given = parser.parse_args()
    configure("info" if given.part else "warning")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(runner.run(run(given))).decode())


if __name__ == "__main__":
    main()
