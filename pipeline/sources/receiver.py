"""
The webhook receiver: raw bytes, durable before 2xx.

Reads    HTTP: ``/in/sakari/<tenant>/<secret>``, ``/in/users``, ``/in/source/<name>/<tenant>``
Writes   ``sources.received``  key: native key
State    none
Time     ``received_at`` is the wall clock when the body is complete
Repeats  a sender that saw no 2xx sends again; decode recognises the fact

Size limit → raw bytes → verify → native key → produce → 2xx. What is overload or Kafka's absence is
answered 429 with Retry-After, and so is a bug of ours, never 5xx: the Users API retries only 429 and
drops the event on anything else. No body and no path of a secret is ever logged.
"""

import asyncio
import logging
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.codec import Codec, Output
from pipeline.errors import BrokerError, ConfigError, RecordError, WebhookError
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

#: W3C Trace Context, version 00; ids of zeros only are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

#: What a sender that we cannot serve now is told to wait, in seconds.
_RETRY_AFTER_S = 5

#: A ``timestamp`` below is in seconds since 1970, one from here on in milliseconds.
_SECONDS_END = 100_000_000_000

Handler = Callable[[web.Request, bytes], Awaitable[None]]


class Publish(Protocol):
    """Writes one record; raises `BrokerError` where its fate is unknown."""

    async def __call__(self, output: Output) -> None:
        """Return when the record is durable."""
        ...


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Receiver:
    """
    Serves webhooks; a `pipeline.runtime.worker.Service`.

    *answered* counts (product, status); *now* is the wall clock in ms since 1970.

    Raises:
        ConfigError: a public key of the Users API, or a secret of a source, cannot be read.
    """

    name = "receiver"

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        publish: Publish,
        answered: Callable[[str, int], None],
        *,
        now: Callable[[], int] = _wall_ms,
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
        self._now = now
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
        """
        Serve until ``stop``; requests in flight are answered first.

        Raises:
            ConfigError: it cannot listen where the settings say.
        """
        runner = web.AppRunner(self.application(), access_log=None, logger=_http_log(), shutdown_timeout=10)
        await runner.setup()
        try:
            await self._listen(runner)
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            raise ConfigError(f"receiver.port: cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = runner.addresses[0][1]

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
        except Exception as error:  # noqa: BLE001 - a 5xx would lose the event; its text may quote the body
            _log.error("webhook.failed", error=type(error).__name__, at=_raised_at(error))
            return _refusal(WebhookError(429, "cannot be taken now", _RETRY_AFTER_S))
        finally:
            self._in_flight -= 1
        return web.json_response({"received": True})

    async def _body(self, request: web.Request) -> bytes:
        limit = self._settings.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise _too_large(limit) from error
        except TimeoutError as error:
            raise WebhookError(429, "the body did not arrive in time", _RETRY_AFTER_S) from error
        except (web.RequestPayloadError, HttpProcessingError, OSError) as error:
            raise WebhookError(400, "the body did not arrive whole") from error
        if len(body) > limit:
            raise _too_large(limit)
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
        verified = signatures.ed25519(request.headers.get("X-GHL-Signature"), raw, self._keys)
        body = parsed(raw)
        location = users_location(body) if body else None
        tenant = self._owners.of_location(location) if location else None
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
        sent_ms = _sent_ms(body.get("timestamp"))
        if sent_ms is not None and abs(self._now() - sent_ms) > self._settings.timestamp_tolerance_s * 1000:
            raise WebhookError(401, "too old")

    async def _source(self, request: web.Request, raw: bytes) -> None:
        name, tenant = request.match_info["name"], request.match_info["tenant"]
        source = self._sources.get(name)
        if source is None or tenant not in self._tenants:
            raise WebhookError(404, "no such place")
        secret = self._source_secrets[name]
        if source.auth == "standard-webhooks":
            tolerance = self._settings.timestamp_tolerance_s
            now_s = self._now() / 1000
            verified = signatures.standard_webhook(request.headers, raw, secret, now_s, tolerance)
        else:
            verified = signatures.shared_secret(request.headers.get(source.header), secret)
        if not verified:
            raise WebhookError(401, "wrong or missing secret")
        headers = {"product": name, "tenant": tenant, "account": "", "verified": "true"}
        await self._produce(request, source_key(tenant, source, raw, parsed(raw)), raw, headers)

    async def _produce(self, request: web.Request, key: str, raw: bytes, headers: dict[str, str]) -> None:
        now = self._now()
        given = request.headers.get("traceparent", "")
        place = f"webhook/{headers['product']}/{headers['tenant']}"
        cause: Event[None] = Event(
            topic="",
            key=key,
            value=None,
            id=uuid.uuid4().hex,
            received_at=now,
            traceparent=given if _TRACEPARENT.fullmatch(given) else _new_trace(),
        )
        told = {"ce_source": f"/{place}", "source": "webhook", "resource": "webhook", **headers}
        told["received_at"] = from_ms(now)
        emit = Emit("sources.received", key, raw, cause.id, from_ms(now), key, tuple(told.items()))
        for output in self._codec.encode(emit, cause, place, 0):
            await self._publish(output)


def _sent_ms(timestamp: Any) -> int | None:
    """A webhook's own *timestamp* in ms since 1970; None where it tells none that can be read."""
    if isinstance(timestamp, str):
        try:
            return to_ms(parse(timestamp))
        except ValueError:
            return None  # decode tells of a timestamp that is none; the signature holds without it
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float):
        return None
    return round(timestamp if timestamp >= _SECONDS_END else timestamp * 1000)


def _new_trace() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _too_large(limit: int) -> WebhookError:
    return WebhookError(413, f"at most {limit} bytes")


def _refusal(error: WebhookError) -> web.Response:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return web.json_response({"error": str(error)}, status=error.status, headers=headers)


def _raised_at(error: BaseException) -> str:
    """The function and line that raised *error*: what can be told of it without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else ""


class _NoQuotes(logging.Filter):
    """Takes exceptions out of what aiohttp logs: they quote request lines, so secret paths, and headers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass *record* on, without its exception's text."""
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = "%s: %s", (record.getMessage(), record.exc_info[0].__name__)
            record.exc_info = record.exc_text = None
        return True


def _http_log() -> logging.Logger:
    log = logging.getLogger(f"{__name__}.http")
    if not log.filters:
        log.addFilter(_NoQuotes())
    return log
