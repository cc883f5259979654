"""
Requests per second of the receiver with durable acknowledgements, beside a bare aiohttp handler.

Run it as ``python -m tests.bench.receiver``. The bare handler reads the body and answers, nothing else; the
receiver verifies, finds tenant and key, and answers when Kafka has acknowledged. Both take the webhooks of
the sandbox's story (Sakari's by secret path, the Users API's signed) from the same load generator, in turns
in one run. Prints one line of JSON with the medians.
"""

import argparse
import asyncio
import cProfile
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson
import uvloop
from aiohttp import web
from prometheus_client import Counter

from pipeline.codec import Codec
from pipeline.logs import configure
from pipeline.runtime import admin, topic_plan
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.reader import warmed
from pipeline.runtime.worker import seldom_collecting
from pipeline.sandbox.state import Hook
from pipeline.sandbox.webhooks import Signer
from pipeline.settings import (
    KafkaSettings,
    ReceiverSettings,
    SakariAccount,
    SecretRef,
    Settings,
    Tenant,
    UsersLocation,
)
from pipeline.sources.receiver import Receiver
from pipeline.topics import load
from tests.bench.whole_pipeline import story

#: In the path of Sakari's webhooks.
_SECRET = "0123456789abcdef0123456789abcdef"
_HOOKS = 5_000


@asynccontextmanager
async def bare() -> AsyncIterator[int]:
    """The port of a handler that only reads the body."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiving(settings: Settings) -> AsyncIterator[int]:
    """The port of the real receiver, which writes to the settings' Kafka."""
    connection, topics, metrics = Connection(settings.kafka, settings.runtime), load(), Metrics()
    profile = topics.profile("dev")
    await admin.ensure(connection.common, topic_plan.wanted(topics, profile, "bench", []))
    await warmed(connection)
    publisher = Publisher(connection, settings.receiver.produce_timeout_s)
    codec = Codec(topics, profile.partitions, "bench")

    @cache
    def counter(product: str, status: int) -> Counter:
        return metrics.webhooks.labels(product, str(status))

    def answered(product: str, status: int) -> None:
        counter(product, status).inc()

    receiver = Receiver(settings, codec, publisher.publish, answered)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(receiver.run(), name="receiver")
        while not receiver.ready:  # noqa: ASYNC110 - what listens tells nobody
            await asyncio.sleep(0.01)
        yield receiver.port
        receiver.stop()
        await running
    await publisher.close()


def requests(hooks: list[Hook], owners: dict[str, str], signer: Signer) -> tuple[list[bytes], list[bytes]]:
    """The whole HTTP requests for the receiver, and for the bare handler."""
    bodies = [(hook, hook.encoded()) for hook in hooks]
    ours = []
    for hook, body in bodies:
        if hook.product == "users":
            path, more = "/in/users", f"X-GHL-Signature: {signer.sign(body)}\r\n"
        else:
            path, more = f"/in/sakari/{owners[hook.owner]}/{_SECRET}", ""
        ours.append(_request(path, body, more))
    return ours, [_request("/", body, "") for _, body in bodies]


def _request(path: str, body: bytes, more: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def loaded(port: int, file: Path, seconds: float, connections: int) -> dict[str, Any]:
    """What the load generator tells of one round; every answer must be a 200."""
    command = (sys.executable, "-m", "tests.bench.receiver_load")
    told = (str(port), str(file), str(seconds), str(connections))
    child = await asyncio.create_subprocess_exec(*command, *told, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    figures: dict[str, Any] = orjson.loads(out)
    if set(figures["statuses"]) != {"200"}:
        raise SystemExit(f"answers other than 200: {figures['statuses']}")
    return figures


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure; the figures."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    traffic, hooks = story(_HOOKS, folder, time.time_ns() // 1_000_000)
    hooks = [hook for hook in hooks if given.product in {"all", hook.product}]
    signer = Signer()
    owners = {t.account.id: n for n, t in traffic.world.tenants.items()}
    files = folder / "receiver", folder / "bare"
    for file, made in zip(files, requests(hooks, owners, signer), strict=True):
        file.write_bytes(msgspec.msgpack.encode(made))
    tenants = {n: _tenant(t.account.id, t.location.id) for n, t in traffic.world.tenants.items()}
    async with EmbeddedBroker() as broker:
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
            receiver=ReceiverSettings(port=0, produce_timeout_s=30, users_api_keys=(signer.public_key_pem,)),
            tenants=tenants,
        )
        async with bare() as bare_port, receiving(settings) as port:
            with seldom_collecting():  # as a worker does
                return await measured((port, bare_port), files, given)


async def measured(
    ports: tuple[int, int], files: tuple[Path, Path], given: argparse.Namespace
) -> dict[str, Any]:
    """The figures of all rounds; the first, of each, is a warm-up."""
    rates: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    profiler = cProfile.Profile() if given.profile else None
    for number in range(given.rounds + 1):
        for who in (0, 1):
            if profiler and number and not who:
                profiler.enable()
            begun = time.process_time()
            figures = await loaded(ports[who], files[who], given.seconds if number else 2, given.connections)
            used = time.process_time() - begun
            if profiler:
                profiler.disable()
            if number:
                rates[who].append(figures["requests_per_s"])
                cpu[who].append(used / sum(figures["statuses"].values()) * 1e6)
    if profiler:
        profiler.dump_stats(given.profile)
    ours, plain = (statistics.median(found) for found in rates)
    return {
        "kind": "bench",
        "work": "receiver",
        "product": given.product,
        "connections": given.connections,
        "requests_per_s": round(ours),
        "bare_requests_per_s": round(plain),
        "share_of_bare": round(ours / plain, 3),
        "cpu_us": round(statistics.median(cpu[0]), 1),
        "bare_cpu_us": round(statistics.median(cpu[1]), 1),
    }


def _tenant(account: str, location: str) -> Tenant:
    secret = SecretRef(value="unused")
    digest = hashlib.sha256(_SECRET.encode()).hexdigest()
    sakari = SakariAccount(
        account_id=account, client_id=secret, client_secret=secret, webhook_secrets_sha256=(digest,)
    )
    return Tenant(sakari=(sakari,), users=(UsersLocation(location_id=location, token=secret),))


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of these")
    parser.add_argument("--connections", type=int, default=64, help="each with one request in flight")
    parser.add_argument("--product", default="all", choices=("all", "sakari", "users"))
    parser.add_argument("--profile", default="", help="write cProfile's figures of the receiver to this file")
    given = parser.parse_args()
    configure("warning")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(runner.run(run(given))).decode())


if __name__ == "__main__":
    main()
