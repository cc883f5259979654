"""
START HERE: the sandbox as one program - both APIs, sample traffic, the ledger, and a control port.

`opened` brings all of it up; `Program` starts and stops the traffic. The control port is how another
process does the same: ``GET /status``, ``PUT /traffic`` with ``{"receiver", "rate"?, "count"?}``,
``DELETE /traffic``, ``POST /drain``, ``POST /send``, ``GET /holdings`` (for the oracle), and
``/_sandbox/faults`` as on both APIs. It asks for no password: by default all listen on loopback only.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from pipeline.errors import ConfigError
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.http_app import admin_faults
from pipeline.sandbox.http_servers import Place, SandboxServers, SandboxSettings, sandbox_servers
from pipeline.sandbox.ledger import Ledger, wall_ms
from pipeline.sandbox.oracle_posted import holdings
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.traffic import Traffic, traffic_faults
from pipeline.sandbox.traffic_time import CLOSES_AFTER_S
from pipeline.sandbox.webhooks import DeliverySettings
from pipeline.sandbox.world import TenantSpec, tenant_specs

__all__ = ["DEFAULT_NAMES", "Options", "Program", "opened", "path_secret"]

DEFAULT_NAMES: Final = ("acme", "bolt", "cedar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What the sandbox is told.

    Parameters
    ----------
    ledger
        Folder of the ledger and the settings; must not hold another ledger.
    rate
        Webhooks per second.
    seed
        Of the traffic; the same seed tells the same story.
    tenants
        Names of the customers.
    faults
        Let a few webhooks be lost, doubled, delayed and overtaken.
    control_port
        Where traffic and faults are switched; 0 takes a free one.
    host
        The address to listen on, with all ports.
    advertised_host
        The name by which the pipeline reaches it; default: the address it listens on.
    closes_after_s
        Seconds until the windows of the sample traffic's past close: until then its facts are in time.
    """

    ledger: Path = Path(".pipeline/sandbox")
    rate: float = 20.0
    seed: int = 7
    tenants: tuple[str, ...] = DEFAULT_NAMES
    faults: bool = True
    control_port: int = 0
    host: str = "127.0.0.1"
    advertised_host: str = ""
    closes_after_s: int = CLOSES_AFTER_S

    @property
    def place(self) -> Place:
        """Where its servers listen."""
        return Place(host=self.host, advertised_host=self.advertised_host)


def path_secret(seed: int, account_id: str) -> str:
    """The secret in the path of an account's webhooks: 32 hex digits, from the seed."""
    return hashlib.sha256(f"sandbox path secret {seed} {account_id}".encode()).hexdigest()[:32]


class Program:
    """The running sandbox."""

    def __init__(
        self, options: Options, specs: tuple[TenantSpec, ...], servers: SandboxServers, traffic: Traffic
    ) -> None:
        self.options = options
        self.specs = specs
        self.servers = servers
        self.traffic = traffic
        self.control_url = ""
        self.refresh_tokens: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self.tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the traffic's task until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self.tasks = tasks
            await asyncio.Event().wait()

    def status(self) -> dict[str, Any]:
        """Counts so far, and where everything listens."""
        counts = self.servers.webhooks.counts
        return {
            "running": self._running is not None and not self._running.done(),
            "webhooks_sent": self.traffic.sent,
            "webhooks_accepted": counts["accepted"],
            "webhooks_duplicated": counts["duplicated"],
            "webhooks_lost": counts["lost"],
            "pending": self.servers.webhooks.pending,
            "sakari_url": self.servers.sakari_url,
            "users_url": self.servers.users_url,
            "control_url": self.control_url,
            "start_ms": self.traffic.world.start_ms,
            "boundary_ms": self.traffic.world.boundary_ms,
        }

    def subscribe(self, receiver: str) -> None:
        """Send the webhooks of every account and location to *receiver* (its base URL)."""
        base = receiver.rstrip("/")
        for name, tenant in self.traffic.world.tenants.items():
            account = tenant.account
            secret = path_secret(self.options.seed, account.id)
            account.subscriptions.clear()
            account.subscribe(f"{base}/in/sakari/{name}/{secret}")
        self.servers.state.users.callback_urls[:] = [f"{base}/in/users"]

    def start(self, rate: float | None = None, count: int | None = None) -> None:
        """Send at *rate* webhooks a second until `stop`, or *count* of them."""
        assert self.tasks is not None
        self.traffic.rate = rate or self.traffic.rate
        self._stop.clear()
        self._running = self.tasks.create_task(
            self.traffic.run(count=count, stop=self._stop), name="sandbox traffic"
        )

    async def stop(self) -> None:
        """Send no more; what is on its way goes on."""
        self._stop.set()
        if self._running is not None:
            await self._running
        self.traffic.ledger.flush()

    async def drain(self) -> None:
        """Return when every webhook has had its last attempt."""
        await self.servers.webhooks.drain()
        self.traffic.ledger.flush()


@asynccontextmanager
async def opened(options: Options) -> AsyncIterator[Program]:
    """
    The sandbox, its servers listening, its ledger begun, its traffic not yet started.

    Raises:
        ConfigError: a tenant name or the ledger's folder cannot be used.
    """
    specs = tenant_specs(options.tenants)
    state = SandboxState(seed=options.seed)
    faults = Faults(seed=options.seed)
    settings = SandboxSettings(place=options.place, delivery=DeliverySettings(lane_capacity=512))
    with Ledger(options.ledger) as ledger:
        async with sandbox_servers(state, faults, settings=settings) as servers:
            traffic = Traffic(
                state,
                ledger,
                servers.webhooks,
                seed=options.seed,
                start_ms=wall_ms(),
                tenants=specs,
                rate=options.rate,
            )
            for rule in traffic_faults() if options.faults else ():
                faults.put(rule)
            program = Program(options, specs, servers, traffic)
            await _authorize(program)
            async with _controlled(program), _owned(program):
                yield program


async def _authorize(program: Program) -> None:
    """Install the app at every location: an authorization code becomes the first refresh token."""
    state = program.servers.state.users
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        for tenant in program.traffic.world.tenants.values():
            form = {
                "grant_type": "authorization_code",
                "client_id": state.client_id,
                "client_secret": state.client_secret,
                "code": state.add_code(tenant.location.id),
                "user_type": "Location",
            }
            async with session.post(f"{program.servers.users_url}/oauth/token", data=form) as answer:
                granted = await answer.json()
                program.refresh_tokens[tenant.location.id] = granted["refresh_token"]


@asynccontextmanager
async def _owned(program: Program) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(program.run(), name="sandbox program")
        try:
            await asyncio.sleep(0)  # lets the program open its own task group
            yield
        finally:
            running.cancel()


@asynccontextmanager
async def _controlled(program: Program) -> AsyncIterator[None]:
    app = web.Application()
    app.add_routes(
        [
            web.get("/status", _answering(program, _status)),
            web.get("/holdings", _holdings(program)),
            web.put("/traffic", _answering(program, _start)),
            web.delete("/traffic", _answering(program, _halt)),
            web.post("/drain", _answering(program, _drain)),
            web.post("/send", _answering(program, _send)),
            web.route("*", "/_sandbox/faults", admin_faults(program.servers.faults)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        place = program.options.place
        await web.TCPSite(runner, place.host, program.options.control_port).start()
        program.control_url = place.url(runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()


def _answering(program: Program, action: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        try:
            given = orjson.loads(await request.read() or b"{}")
            await action(program, given if isinstance(given, dict) else {})
        except (orjson.JSONDecodeError, ValueError, ConfigError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(program.status())

    return answer


def _holdings(program: Program) -> Any:
    async def answer(_: web.Request) -> web.Response:
        rows = list(holdings(program.servers.state))
        return web.Response(body=orjson.dumps(rows), content_type="application/json")

    return answer


async def _status(_: Program, __: dict[str, Any]) -> None:
    """Nothing to do but to tell."""


async def _start(program: Program, given: dict[str, Any]) -> None:
    if unknown := sorted(set(given) - {"receiver", "rate", "count"}):
        raise ConfigError(f"unknown: {', '.join(unknown)}; known are receiver, rate, count")
    if "receiver" in given:
        program.subscribe(str(given["receiver"]))
    rate, count = given.get("rate"), given.get("count")
    program.start(float(rate) if rate else None, int(count) if count else None)


async def _halt(program: Program, _: dict[str, Any]) -> None:
    await program.stop()


async def _drain(program: Program, _: dict[str, Any]) -> None:
    await program.drain()


async def _send(program: Program, given: dict[str, Any]) -> None:
    if "receiver" in given:
        program.subscribe(str(given["receiver"]))
    await program.traffic.send(int(given.get("count", 1)))
