"""
Milliseconds from a webhook to its events on ``activity.enriched``, read by a consumer, at a fixed rate.

Run it as ``python -m tests.bench.latency``. The program is `pipeline run` as users start it, in one process:
receiver, clock and all stages, without what talks to the APIs. Webhooks of the sandbox's story are sent at
even distances, whatever becomes of those before. An event's latency is the consumer's clock when it has the
record, read_committed, less the record's timestamp, which is when the receiver had the whole body. The first
seconds are a warm-up. Prints one line of JSON.
"""

import argparse
import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.sandbox.traffic import Traffic
from pipeline.sandbox.webhooks import Signer
from tests.bench.receiver import requests
from tests.bench.whole_pipeline import STAGES, story

#: In the path of Sakari's webhooks, as `tests.bench.receiver` has it.
_SECRET = "0123456789abcdef0123456789abcdef"
_PARTITIONS = 2
_CONNECTIONS = 32
_ANSWER_S = 10.0
_READY_S = 60.0
#: After the last webhook its events are awaited so long, in seconds.
_TAIL_S = 3.0


def settings_of(traffic: Traffic, signer: Signer, servers: str, folder: Path) -> Path:
    """The settings file of the program."""
    unused = folder / "unused"
    unused.write_text("unused")
    identity = folder / "identity"
    identity.write_text(DEV_IDENTITY_SECRET)
    secret = {"file": str(unused)}
    digest = hashlib.sha256(_SECRET.encode()).hexdigest()
    account = {"client_id": secret, "client_secret": secret, "webhook_secrets_sha256": [digest]}
    values = {
        "profile": "dev",
        "log": {"level": "warning"},
        "identity_secret": {"file": str(identity)},
        "kafka": {"bootstrap_servers": servers},
        "runtime": {"state_dir": str(folder / "state")},
        "admin": {"port": 0},
        "clock": {"interval_s": 1.0},
        "receiver": {"port": 0, "users_api_keys": [signer.public_key_pem]},
        "tenants": {
            name: {
                "time_zone": tenant.spec.time_zone,
                "region": tenant.spec.region,
                "sakari": [{"account_id": tenant.account.id, **account}],
                "users": [{"location_id": tenant.location.id, "token": secret}],
            }
            for name, tenant in traffic.world.tenants.items()
        },
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@asynccontextmanager
async def program(settings: Path) -> AsyncIterator[int]:
    """The receiver's port of the running program."""
    pipeline = str(Path(sys.executable).with_name("pipeline"))
    applied = await asyncio.create_subprocess_exec(
        pipeline, "topics", "apply", "--yes", "--settings", str(settings), stdout=asyncio.subprocess.DEVNULL
    )
    assert await applied.wait() == 0
    only = ",".join(("receiver", "clock", *STAGES))
    process = await asyncio.create_subprocess_exec(
        *(pipeline, "run", "--json", "--settings", str(settings), "--only", only),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_S):
            ready = orjson.loads(await process.stdout.readline())
        yield int(ready["receiver"].rpartition(":")[2])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Sending:
    """Sends *waiting* requests over kept connections at *rate* a second, each when it is due."""

    def __init__(self, port: int, waiting: list[bytes], rate: float) -> None:
        self.statuses: Counter[str] = Counter()
        self.late_ms = 0.0
        self._port = port
        self._waiting = list(enumerate(waiting))[::-1]
        self._rate = rate
        self._begun = time.monotonic()

    async def run(self) -> None:
        """Return when all are answered."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(_CONNECTIONS):
                tasks.create_task(self._connection(), name=f"connection {number}")

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while self._waiting:
            number, request = self._waiting.pop()
            due = self._begun + number / self._rate
            await asyncio.sleep(due - time.monotonic())
            self.late_ms = max(self.late_ms, (time.monotonic() - due) * 1000)
            writer.write(request)
            async with asyncio.timeout(_ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
            self.statuses[head[9:12].decode()] += 1
        writer.close()


async def latencies(servers: str, since_ms: int, found: list[int]) -> None:
    """Put the latency of each event whose webhook came after *since_ms* into *found*, until cancelled."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    await consumer.start()
    try:
        places = [TopicPartition("activity.enriched", number) for number in range(_PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while True:
            fetched = await consumer.getmany(timeout_ms=1000)
            now = time.time_ns() // 1_000_000
            found += [now - r.timestamp for some in fetched.values() for r in some if r.timestamp >= since_ms]
    finally:
        await consumer.stop()


def share(ordered: list[int], of: float) -> int:
    """The value below which the share *of* of the *ordered* ones lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * of))]


async def run(rate: float, seconds: float, warm_up_s: float) -> dict[str, Any]:
    """Measure; the figures."""
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as made:
        folder = Path(made)
        count = int(rate * (seconds + warm_up_s))
        traffic, hooks = story(count, folder, time.time_ns() // 1_000_000)
        tenants = traffic.world.tenants.items()
        owners = {id_: name for name, t in tenants for id_ in (t.account.id, t.location.id)}
        signer, found = Signer(), list[int]()
        waiting, _ = requests(hooks, owners, signer)
        async with EmbeddedBroker() as broker:
            settings = settings_of(traffic, signer, broker.bootstrap_servers, folder)
            async with program(settings) as port, asyncio.TaskGroup() as tasks:
                since_ms = time.time_ns() // 1_000_000 + int(warm_up_s * 1000)
                watching = tasks.create_task(latencies(broker.bootstrap_servers, since_ms, found))
                sending = Sending(port, waiting, rate)
                await sending.run()
                await asyncio.sleep(_TAIL_S)
                watching.cancel()
    ordered = sorted(found)
    return {
        "kind": "bench",
        "work": "latency",
        "rate": rate,
        "webhooks": count,
        "answers": dict(sending.statuses),
        "sent_late_ms": round(sending.late_ms),
        "events": len(ordered),
        **{name: share(ordered, of) for name, of in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))},
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="webhooks a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds before that")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(runner.run(run(given.rate, given.seconds, given.warm_up))).decode())


if __name__ == "__main__":
    main()
