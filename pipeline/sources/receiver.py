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
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.codec import MAX_RECORD_BYTES, Codec, Header, Output
from pipeline.errors import BrokerError, ConfigError, RecordError, WebhookError
from pipeline.instants import from_ms, parse, to_ms
from pipeline.settings import Settings, Tenant
from pipeline.sources import signatures
from pipeline.sources.intake import (
    Owners,
    addressed,
    parsed,
    sakari_account,
    sakari_key,
    source_key,
    users_key,
    users_location,
)

__all__ = ["Publish", "Receiver"]

_log = structlog.get_logger(__name__)

#: W3C Trace Context, version 00; ids of zeros only are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

#: What a sender that we cannot serve now is told to wait, in seconds.
_RETRY_AFTER_S = 5

_RECEIVED = b'{"received":true}'

#: A ``timestamp`` below is in seconds since 1970, one from here on in milliseconds.
_SECONDS_END = 100_000_000_000

_TOPIC = "sources.received"

#: Room for the names and the short texts of a record's headers.
_HEADER_BYTES = 2_048

Handler = Callable[[web.BaseRequest, bytes], Awaitable[None]]


class _Whose(NamedTuple):
    """Where a webhook comes from and whom it concerns; *account* is empty where it tells none."""

    product: str
    tenant: str
    account: str = ""
    verified: bool = True


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
        self._path_secrets = {
            name: [digest for account in tenant.sakari for digest in account.webhook_secrets_sha256]
            for name, tenant in settings.tenants.items()
        }
        self._source_secrets = {name: s.secret.reveal() for name, s in settings.sources.items()}
        self._keys = signatures.public_keys(settings.receiver.users_api_keys)
        self._owners = Owners(settings.tenants)
        self._codec = codec
        self._topic = codec.topics[_TOPIC]
        self._constant = lru_cache(maxsize=256)(_constant)
        self._publish = publish
        self._answered = answered
        self._now = now
        self._random = random.Random()  # noqa: S311 - ids have to differ, not to be secret
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
        # No web.Application: three paths need no router, and its work for each request is as much as ours.
        server = web.Server(self._serve, access_log=None, logger=_http_log())
        runner = web.ServerRunner(server, shutdown_timeout=10)
        await runner.setup()
        try:
            await self._listen(runner)
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.ServerRunner) -> None:
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            raise ConfigError(f"receiver.port: cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = runner.addresses[0][1]

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to *request*, wherever it was sent to."""
        handle: Handler
        match request.path.split("/"):
            case ["", "in", "sakari", tenant, secret]:
                product, handle = "sakari", partial(self._sakari, tenant, secret)
            case ["", "in", "users"]:
                product, handle = "users", self._users
            case ["", "in", "source", name, tenant]:
                product, handle = "source", partial(self._source, name, tenant)
            case _:
                return _refusal(WebhookError(404, "no such place"))
        if request.method != "POST":
            return _refusal(WebhookError(405, "only POST"))
        response = await self._answer(request, handle)
        self._answered(product, response.status)
        return response

    async def _answer(self, request: web.BaseRequest, handle: Handler) -> web.StreamResponse:
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
        return _TAKEN if request.keep_alive and request.version == HttpVersion11 else _taken()

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self._settings.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        try:
            if request.content.is_eof():  # most bodies come with their head: there is nothing to wait for
                body = request.content.read_nowait()
            else:
                async with asyncio.timeout(self._settings.body_timeout_s):
                    await _continued(request)
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

    async def _sakari(self, tenant: str, secret: str, request: web.BaseRequest, raw: bytes) -> None:
        if not signatures.path_secret(secret, self._path_secrets.get(tenant, ())):
            raise WebhookError(404, "no such place")
        body = addressed(raw)
        account = sakari_account(body) if body else None
        if account is not None and self._owners.of_account(account) != tenant:
            raise WebhookError(404, "no such account here")
        whose = _Whose("sakari", tenant, account or "")
        await self._produce(request, sakari_key(tenant, raw, body), raw, whose)

    async def _users(self, request: web.BaseRequest, raw: bytes) -> None:
        verified = signatures.ed25519(request.headers.get("X-GHL-Signature"), raw, self._keys)
        body = addressed(raw)
        location = users_location(body) if body else None
        tenant = self._owners.of_location(location) if location else None
        if not verified:
            self._refuse_unverified(verified, self._tenants.get(tenant) if tenant else None)
        elif body:
            self._check_age(body)
        name = tenant or "-"
        whose = _Whose("users", name, location or "", bool(verified))
        await self._produce(request, users_key(name, raw, body), raw, whose)

    def _refuse_unverified(self, verified: bool | None, tenant: Tenant | None) -> None:
        if verified is None and tenant is not None and tenant.accept_unverified:
            return
        raise WebhookError(401, "signature required" if verified is None else "wrong signature")

    def _check_age(self, body: Mapping[str, Any]) -> None:
        sent_ms = _sent_ms(body.get("timestamp"))
        if sent_ms is not None and abs(self._now() - sent_ms) > self._settings.timestamp_tolerance_s * 1000:
            raise WebhookError(401, "too old")

    async def _source(self, name: str, tenant: str, request: web.BaseRequest, raw: bytes) -> None:
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
        await self._produce(request, source_key(tenant, source, raw, parsed(raw)), raw, _Whose(name, tenant))

    async def _produce(self, request: web.BaseRequest, key: str, raw: bytes, whose: _Whose) -> None:
        now = self._now()
        at, subject = from_ms(now).encode(), key.encode()
        if len(raw) + 2 * len(subject) + len(whose.account.encode()) > MAX_RECORD_BYTES - _HEADER_BYTES:
            raise RecordError("too-large", f"a body of {len(raw)} bytes, with a long key")
        given = request.headers.get("traceparent", "")
        ids = self._random.randbytes(40).hex()
        trace = given if _TRACEPARENT.fullmatch(given) else f"00-{ids[:32]}-{ids[32:48]}-01"
        headers: list[Header] = [
            *self._constant(whose),
            ("ce_id", ids[48:].encode()),
            ("ce_time", at),
            ("ce_subject", subject),
            ("traceparent", trace.encode()),
            ("received_at", at),
        ]
        for partition in self._codec.placed(self._topic, key):
            await self._publish(Output(_TOPIC, partition, now, subject, raw, headers))


def _constant(whose: _Whose) -> tuple[Header, ...]:
    """The headers that do not change from one webhook to the next."""
    place = f"webhook/{whose.product}/{whose.tenant}"
    told = {
        "ce_specversion": "1.0",
        "ce_type": f"{_TOPIC}.v1",
        "ce_source": f"/{place}",
        "content-type": "application/json",
        "source": "webhook",
        "resource": "webhook",
        "product": whose.product,
        "tenant": whose.tenant,
        "account": whose.account,
        "verified": "true" if whose.verified else "false",
    }
    return tuple((name, text.encode()) for name, text in told.items())


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


async def _continued(request: web.BaseRequest) -> None:
    """Tell a sender that waits for it to send the body (RFC 9110 section 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _taken() -> web.Response:
    return web.Response(body=_RECEIVED, content_type="application/json")


class _Taken(web.StreamResponse):
    """
    What ``_taken`` says, to all whose connection stays open.

    aiohttp would put the same headers together again for each.
    """

    @property
    def keep_alive(self) -> bool:
        """It does."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write all of it."""
        await request.writer.write(_taken_at(int(time.time())))

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


_TAKEN = _Taken()


@lru_cache(maxsize=1)
def _taken_at(second: int) -> bytes:
    """The answer's bytes in this *second* since 1970."""
    head = (
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        f"Content-Length: {len(_RECEIVED)}",
        f"Date: {formatdate(second, usegmt=True)}",
    )
    return "\r\n".join((*head, "", "")).encode() + _RECEIVED


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
