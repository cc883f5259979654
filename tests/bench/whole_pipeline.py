"""
Events per second through the whole pipeline: `sources.received` prefilled, all stages in one process.

Run it as ``python tests/bench/whole_pipeline.py --records 200000``. It prints one line of JSON; beside the
rate it prints the ceiling measured in the same run: reading and parsing the same records, nothing else.
"""

import argparse
import asyncio
import cProfile
import random
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop

from pipeline import topology
from pipeline.codec import Codec, Output, new_traceparent
from pipeline.errors import BrokerError
from pipeline.identity import Identity
from pipeline.instants import from_ms
from pipeline.logs import configure, mask
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.runtime import admin, topic_plan
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.reader import reading, warmed
from pipeline.runtime.worker import Worker
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.state import Hook, SandboxState
from pipeline.sandbox.traffic import Traffic
from pipeline.sandbox.webhooks import Webhooks
from pipeline.settings import (
    KafkaSettings,
    RuntimeSettings,
    SakariAccount,
    SecretRef,
    Settings,
    Tenant,
    UsersLocation,
)
from pipeline.sources.intake import sakari_key, users_key
from pipeline.stage import Emit, Event
from pipeline.topics import load

STAGES = ("decode", "broadcast", "enrich", "engagement", "rollup")


def story(records: int, folder: Path, start_ms: int) -> tuple[Traffic, list[Hook]]:
    """The sample's customers, and *records* webhooks of theirs."""
    state = SandboxState(seed=7)
    with Ledger(folder / "ledger") as ledger:
        traffic = Traffic(state, ledger, Webhooks(Faults(seed=7)), seed=7, start_ms=start_ms, rate=500)
        return traffic, [planned.hook for planned in traffic.preview(records)]


def settings_of(traffic: Traffic, bootstrap_servers: str, folder: Path) -> Settings:
    """What the pipeline is told."""
    secret = SecretRef(value="unused")
    tenants = {
        name: Tenant(
            time_zone=tenant.spec.time_zone,
            region=tenant.spec.region,
            sakari=(SakariAccount(account_id=tenant.account.id, client_id=secret, client_secret=secret),),
            users=(UsersLocation(location_id=tenant.location.id, token=secret),),
        )
        for name, tenant in traffic.world.tenants.items()
    }
    return Settings(
        application_id="bench",
        profile="dev",
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers),
        runtime=RuntimeSettings(state_dir=folder / "state"),
        tenants=tenants,
    )


def outputs(traffic: Traffic, hooks: list[Hook], codec: Codec) -> Iterator[Output]:
    """The records that the receiver would have written."""
    owners = {t.account.id: n for n, t in traffic.world.tenants.items()}
    owners |= {t.location.id: n for n, t in traffic.world.tenants.items()}
    for hook in hooks:
        raw = hook.encoded()
        body = orjson.loads(raw)
        tenant = owners[hook.owner]
        key = (sakari_key if hook.product == "sakari" else users_key)(tenant, raw, body)
        now = time.time_ns() // 1_000_000
        cause = Event[Any](
            topic="",
            key=key,
            value=None,
            id=uuid.uuid4().hex,
            received_at=now,
            traceparent=new_traceparent(raw),
        )
        told = {
            "source": "webhook",
            "resource": "webhook",
            "product": hook.product,
            "tenant": tenant,
            "account": hook.owner,
            "verified": "true",
            "received_at": from_ms(now),
        }
        emit = Emit("sources.received", key, raw, cause.id, from_ms(now), key, tuple(told.items()))
        yield from codec.encode(emit, cause, "bench", 0)


async def fill(connection: Connection, made: Iterator[Output]) -> None:
    """Write all records."""
    producer = connection.producer()
    await producer.start()
    pending = []
    for output in made:
        pending.append(
            await producer.send(
                output.topic, output.value, output.key, output.partition, output.timestamp, output.headers
            )
        )
    await asyncio.gather(*pending)
    await producer.stop()


async def ceiling(connection: Connection, partitions: int) -> tuple[float, int]:
    """Seconds to read and parse every record of the topic, nothing else; and how many."""
    async with reading(connection, ("sources.received",), partitions) as reader:
        begun, count = time.perf_counter(), 0
        async for record in reader.everything():
            orjson.loads(record.value or b"{}")
            count += 1
        return time.perf_counter() - begun, count


async def drained(worker: Worker) -> None:
    """Return when nothing moves."""
    quiet = 0
    while quiet < 3:
        quiet = quiet + 1 if await at_rest(worker) else 0
        await asyncio.sleep(0.1)


async def at_rest(worker: Worker) -> bool:
    """Whether there is no lag and nothing in progress; a lag that cannot be read now is one."""
    try:
        lag = sum((await worker.lags()).values())
    except BrokerError:
        return False
    idle = all(task.idle for group in worker.groups.values() for task in group.tasks.values())
    return idle and not lag and not worker.unready


async def run(records: int, profile: str) -> dict[str, Any]:
    """Measure; the figures."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    start_ms = time.time_ns() // 1_000_000
    traffic, hooks = story(records, folder, start_ms)
    async with EmbeddedBroker() as broker:
        settings = settings_of(traffic, broker.bootstrap_servers, folder)
        topics = load()
        connection = Connection(settings.kafka, settings.runtime)
        units = [
            u
            for u in topology.units(settings, Identity(DEV_IDENTITY_SECRET.encode()))
            if u.stage.name in STAGES
        ]
        wanted = topic_plan.wanted(topics, topics.profile("dev"), "bench", [u.stage for u in units])
        await admin.ensure(connection.common, wanted)
        await warmed(connection)
        codec = Codec(topics, topics.profile("dev").partitions, "bench")
        await fill(connection, outputs(traffic, hooks, codec))
        read_s, count = await ceiling(connection, 2)
        cluster = Cluster(broker.cluster_id, "bench", 2, connection, codec, settings.runtime, Metrics(), mask)
        worker = Worker(units, cluster)
        profiler = cProfile.Profile() if profile else None
        begun, begun_cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(worker.run(), name="worker")
            await worker.until_ready()
            ready_s = time.perf_counter() - begun
            if profiler:
                profiler.enable()
            await drained(worker)
            seconds, cpu_s = time.perf_counter() - begun - 0.3, time.process_time() - begun_cpu
            if profiler:
                profiler.disable()
                profiler.dump_stats(profile)
            worker.stop()
            await working
        async with reading(connection, ("activity.enriched", "engagement.metrics"), 2) as reader:
            ends = await reader.ends()
    return {
        "kind": "bench",
        "work": "whole-pipeline",
        "records": count,
        "seconds": round(seconds, 2),
        "ready_s": round(ready_s, 2),
        "cpu_s": round(cpu_s, 2),
        "records_per_s": round(count / seconds),
        "ceiling_records_per_s": round(count / read_s),
        "share_of_ceiling": round(read_s / seconds, 3),
        "outputs": dict(ends),
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--profile", default="", help="write cProfile's figures to this file")
    given = parser.parse_args()
    configure("warning")
    random.seed(7)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(runner.run(run(given.records, given.profile))).decode())


if __name__ == "__main__":
    main()
