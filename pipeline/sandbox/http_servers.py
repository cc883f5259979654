"""
Both sandboxes as servers, by default on loopback, for `pipeline dev`, `pipeline sandbox` and the tests.

``async with sandbox_servers(state) as servers:`` listens on free ports until the block ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from pipeline.sandbox.faults import Faults
from pipeline.sandbox.http_app import Api, Clock, make_app, wall_clock
from pipeline.sandbox.sakari_api import SakariApi
from pipeline.sandbox.state import Hook, SandboxState
from pipeline.sandbox.users_api import Limits, UsersApi
from pipeline.sandbox.webhooks import Attempt, DeliverySettings, Signer, Webhooks, addressed

__all__ = ["Place", "SandboxServers", "SandboxSettings", "sandbox_servers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The address that servers listen on, and the name by which others reach it, by default the same."""

    host: str = "127.0.0.1"
    advertised_host: str = ""

    def url(self, port: int) -> str:
        """Where whoever listens at *port* is found."""
        return f"http://{self.advertised_host or self.host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How the servers behave; ports of 0 take free ones."""

    place: Place = field(default_factory=Place)
    sakari_port: int = 0
    users_port: int = 0
    sakari_token_ttl_s: int = 3600
    sakari_requests_per_minute: int | None = None
    users_token_ttl_s: int = 86_399
    users_limits: Limits = field(default_factory=Limits)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxServers:
    """Where both APIs listen, and what sends their webhooks."""

    sakari_url: str
    users_url: str
    state: SandboxState
    faults: Faults
    webhooks: Webhooks

    @property
    def public_key_pem(self) -> str:
        """The key that verifies ``X-GHL-Signature`` of this sandbox."""
        return self.webhooks.signer.public_key_pem

    async def send(self, hooks: tuple[Hook, ...], *, delay_s: float = 0.0) -> None:
        """Hand *hooks* to every URL that asked for them, in this order."""
        for hook in hooks:
            for delivery in addressed(self.state, hook, delay_s=delay_s):
                await self.webhooks.deliver(delivery)


@asynccontextmanager
async def sandbox_servers(
    state: SandboxState,
    faults: Faults | None = None,
    *,
    settings: SandboxSettings | None = None,
    clock: Clock = wall_clock,
    signer: Signer | None = None,
    on_final: Callable[[Attempt], None] | None = None,
    on_hooks: Callable[[tuple[Hook, ...]], None] | None = None,
) -> AsyncIterator[SandboxServers]:
    """
    Both servers, listening until the block ends.

    Args:
        on_final: told the last attempt of each webhook delivery.
        on_hooks: told what each mutation through HTTP causes, before it is delivered; a ledger keeps them.

    Raises:
        OSError: a port that `SandboxSettings` names is taken.
    """
    settings = settings or SandboxSettings()
    faults = faults or Faults(seed=state.seed)
    webhooks = Webhooks(faults, signer=signer, settings=settings.delivery, on_final=on_final, seed=state.seed)
    servers: SandboxServers | None = None

    async def send(hooks: tuple[Hook, ...]) -> None:
        if hooks and on_hooks is not None:
            on_hooks(hooks)
        assert servers is not None
        await servers.send(hooks)

    sakari, users = _apis(state, settings)
    async with (
        _listening(
            make_app(sakari, faults=faults, send=send, clock=clock), settings.place, settings.sakari_port
        ) as sakari_url,
        _listening(
            make_app(users, faults=faults, send=send, clock=clock), settings.place, settings.users_port
        ) as users_url,
        _tasks() as tasks,
    ):
        servers = SandboxServers(
            sakari_url=sakari_url, users_url=users_url, state=state, faults=faults, webhooks=webhooks
        )
        sending = tasks.create_task(webhooks.run(), name="sandbox webhooks")
        try:
            yield servers
        finally:
            sending.cancel()


@asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that lets a single exception of its block through as it is, not as a group of one."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None


def _apis(state: SandboxState, settings: SandboxSettings) -> tuple[Api, Api]:
    sakari = SakariApi(
        state.sakari,
        token_ttl_s=settings.sakari_token_ttl_s,
        requests_per_minute=settings.sakari_requests_per_minute,
    )
    users = UsersApi(state.users, limits=settings.users_limits, access_ttl_s=settings.users_token_ttl_s)
    return sakari, users


@asynccontextmanager
async def _listening(app: web.Application, place: Place, port: int) -> AsyncIterator[str]:
    """*app* on a port of *place*; the URL it answers at."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, place.host, port)
        await site.start()
        yield place.url(runner.addresses[0][1])
    finally:
        await runner.cleanup()
