"""
The webhook receiver: raw bytes, durable before 2xx.

Reads    HTTP: ``/in/sakari/<tenant>/<secret>``, ``/in/users``, ``/in/source/<name>/<tenant>``
Writes   ``sources.received``  key: native key
State    none
Time     ``received_at`` is the wall clock when the body is complete
Repeats  a sender that saw no 2xx sends again; decode recognises the fact

Size limit → raw bytes → verify → native key → produce → 2xx. What is overload or Kafka's absence is
answered 429 with Retry-After, never 5xx: the Users API retries only 429 and drops the event on
anything else. No body and no path of a secret is ever logged.
"""

import asyncio
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
from aiohttp import web

from pipeline.codec import Codec, Output
from pipeline.errors import BrokerError, RecordError, WebhookError
from pipeline.instants import from_ms, parse, to_ms
from pipeline.settings import Settings, Tenant
from pipeline.sources import signatures
from pipeline.sources.intake import (
    Owners,
    parsed,
    sakari_account,
    sakari_key,
    source_key,
    users_key,
    users_location,
)
from pipeline.stage import Emit, Event

__all__ = ["Publish", "Receiver"]

_log = structlog.get_logger(__name__)

_TRACEPARENT = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")

#: What a sender that we cannot serve now is told to wait, in seconds.
_RETRY_AFTER_S = 5

Handler = Callable[[web.Request, bytes], Awaitable[None]]


class Publish(Protocol):
    """Writes one record; raises `BrokerError` where its fate is unknown."""

    async def __call__(self, output: Output) -> None:
        """Return when the record is durable."""
        ...


class Receiver:
    """Serves webhooks; a `pipeline.runtime.worker.Service`. *answered* counts (product, status)."""

    name = "receiver"

    def __init__(
        self, settings: Settings, codec: Codec, publish: Publish, answered: Callable[[str, int], None]
    ) -> None:
        self._settings = settings.receiver
        self._tenants = settings.tenants
        self._sources = settings.sources
        self._source_secrets = {name: s.secret.reveal() for name, s in settings.sources.items()}
        self._keys = signatures.public_keys(settings.receiver.users_api_keys)
        self._owners = Owners(settings.tenants)
        self._codec = codec
        self._publish = publish
        self._answered = answered
        self._in_flight = 0
        self._stopping = asyncio.Event()
        self.port = 0

    @property
    def ready(self) -> bool:
        """Whether it listens."""
        return self.port > 0 and not self._stopping.is_set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._settings.host}:{self.port}"

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until ``stop``; requests in flight are answered first."""
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=10)
        await runner.setup()
        site = web.TCPSite(runner, self._settings.host, self._settings.port, backlog=1024)
        try:
            await site.start()
            self.port = runner.addresses[0][1]
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=self._settings.max_body_bytes + 1)
        application.router.add_post("/in/sakari/{tenant}/{secret}", self._route("sakari", self._sakari))
        application.router.add_post("/in/users", self._route("users", self._users))
        application.router.add_post("/in/source/{name}/{tenant}", self._route("source", self._source))
        return application

    def _route(self, product: str, handle: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            response = await self._answer(request, handle)
            self._answered(product, response.status)
            return response

        return answer

    async def _answer(self, request: web.Request, handle: Handler) -> web.Response:
        if self._in_flight >= self._settings.max_in_flight:
            return _refusal(WebhookError(429, "overloaded", _RETRY_AFTER_S))
        self._in_flight += 1
        try:
            await handle(request, await self._body(request))
        except WebhookError as error:
            return _refusal(error)
        except RecordError as error:
            return _refusal(WebhookError(413, error.reason))
        except BrokerError as error:
            _log.warning("webhook.deferred", error=str(error))
            return _refusal(WebhookError(429, "cannot be stored now", _RETRY_AFTER_S))
        finally:
            self._in_flight -= 1
        return web.json_response({"received": True})

    async def _body(self, request: web.Request) -> bytes:
        limit = self._settings.max_body_bytes
        if (request.content_length or 0) > limit:
            raise WebhookError(413, f"at most {limit} bytes")
        try:
            async with asyncio.timeout(30):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise WebhookError(413, f"at most {limit} bytes") from error
        except TimeoutError as error:
            raise WebhookError(408, "the body did not arrive") from error
        return body

    async def _sakari(self, request: web.Request, raw: bytes) -> None:
        tenant = request.match_info["tenant"]
        owned = self._tenants.get(tenant)
        known = (
            [digest for account in owned.sakari for digest in account.webhook_secrets_sha256] if owned else []
        )
        if not signatures.path_secret(request.match_info["secret"], known):
            raise WebhookError(404, "no such place")
        body = parsed(raw)
        account = sakari_account(body) if body else None
        if account is not None and self._owners.of_account(account) != tenant:
            raise WebhookError(404, "no such account here")
        headers = {"product": "sakari", "tenant": tenant, "account": account or "", "verified": "true"}
        await self._produce(request, sakari_key(tenant, raw, body), raw, headers)

    async def _users(self, request: web.Request, raw: bytes) -> None:
        body = parsed(raw)
        location = users_location(body) if body else None
        tenant = self._owners.of_location(location) if location else None
        verified = signatures.ed25519(request.headers.get("X-GHL-Signature"), raw, self._keys)
        if not verified:
            self._refuse_unverified(verified, self._tenants.get(tenant) if tenant else None)
        elif body:
            self._check_age(body)
        name = tenant or "-"
        headers = {
            "product": "users",
            "tenant": name,
            "account": location or "",
            "verified": "true" if verified else "false",
        }
        await self._produce(request, users_key(name, raw, body), raw, headers)

    def _refuse_unverified(self, verified: bool | None, tenant: Tenant | None) -> None:
        if verified is None and tenant is not None and tenant.accept_unverified:
            return
        raise WebhookError(401, "signature required" if verified is None else "wrong signature")

    def _check_age(self, body: Mapping[str, Any]) -> None:
        try:
            sent_ms = to_ms(parse(str(body["timestamp"])))
        except (KeyError, ValueError):
            return  # decode tells of a timestamp that is none; the signature holds without it
        if abs(time.time() * 1000 - sent_ms) > self._settings.timestamp_tolerance_s * 1000:
            raise WebhookError(401, "too old")

    async def _source(self, request: web.Request, raw: bytes) -> None:
        name, tenant = request.match_info["name"], request.match_info["tenant"]
        source = self._sources.get(name)
        if source is None or tenant not in self._tenants:
            raise WebhookError(404, "no such place")
        secret = self._source_secrets[name]
        if source.auth == "standard-webhooks":
            tolerance = self._settings.timestamp_tolerance_s
            verified = signatures.standard_webhook(request.headers, raw, secret, time.time(), tolerance)
        else:
            verified = signatures.shared_secret(request.headers.get(source.header), secret)
        if not verified:
            raise WebhookError(401, "wrong or missing secret")
        headers = {"product": name, "tenant": tenant, "account": "", "verified": "true"}
        await self._produce(request, source_key(tenant, source, raw, parsed(raw)), raw, headers)

    async def _produce(self, request: web.Request, key: str, raw: bytes, headers: dict[str, str]) -> None:
        now = time.time_ns() // 1_000_000
        given = request.headers.get("traceparent", "")
        cause = Event[Any](
            topic="",
            key=key,
            value=None,
            id=uuid.uuid4().hex,
            received_at=now,
            traceparent=given if _TRACEPARENT.match(given) else _new_trace(),
        )
        told = {"source": "webhook", "resource": "webhook", **headers, "received_at": from_ms(now)}
        emit = Emit("sources.received", key, raw, cause.id, from_ms(now), key, tuple(told.items()))
        for output in self._codec.encode(emit, cause, f"webhook/{headers['product']}/{headers['tenant']}", 0):
            await self._publish(output)


def _new_trace() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _refusal(error: WebhookError) -> web.Response:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return web.json_response({"error": str(error)}, status=error.status, headers=headers)
