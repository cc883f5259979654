"""A real HTTP server on loopback that answers as a test wants, and remembers what it was asked."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import orjson
from aiohttp import web

from pipeline.clients.http import Http, open_session
from pipeline.clients.limits import RateLimiter
from pipeline.clients.sakari import SakariClient
from pipeline.clients.tokens import StaticToken
from pipeline.clients.users import UsersClient
from pipeline.settings import SakariApiSettings, UsersApiSettings

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """A handler that always answers *body* as JSON (bytes: as they are)."""

    async def handler(request: web.Request) -> web.Response:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(body=raw, status=status, headers=headers)

    return handler


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The URL of a server whose every request goes to *handler*."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def door(*, timeout_s: float = 5.0, max_body_bytes: int = 1_000_000) -> AsyncIterator[Http]:
    """A door to HTTP on a session of its own."""
    async with open_session() as session:
        yield Http(session, timeout_s=timeout_s, max_body_bytes=max_body_bytes)


def wide_open() -> RateLimiter:
    """A limiter that never limits a test."""
    return RateLimiter(requests=1_000_000, interval_s=1.0)


@asynccontextmanager
async def sakari(handler: Handler, *, max_pages: int = 100) -> AsyncIterator[SakariClient]:
    """Sakari's client on a server that answers by *handler*."""
    async with serving(handler) as url, door() as http:
        settings = SakariApiSettings(base_url=url)
        tokens = StaticToken(lambda: "token")
        yield SakariClient(http, tokens, settings, "acc", limiter=wide_open(), max_pages=max_pages)


@asynccontextmanager
async def users(
    handler: Handler, *, max_pages: int = 100, limiter: RateLimiter | None = None
) -> AsyncIterator[UsersClient]:
    """The Users API's client on a server that answers by *handler*."""
    async with serving(handler) as url, door() as http:
        settings = UsersApiSettings(base_url=url)
        tokens = StaticToken(lambda: "token")
        yield UsersClient(http, tokens, settings, "loc", limiter=limiter or wide_open(), max_pages=max_pages)
