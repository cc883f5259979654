"""
How an operation of either API becomes an aiohttp route: a plain function of the state, faults around it.

Handlers are synchronous functions of the state (`Call` → `Answer`); what they cause to be sent goes through
`webhooks.Webhooks`. The admin route ``/_sandbox/faults`` (GET lists, PUT adds, DELETE clears, or removes
one by ``?id=``) answers loopback only, and no fault strikes it.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

import orjson
from aiohttp import web

from pipeline.sandbox.faults import ANSWER_KINDS, FaultKind, FaultRule, Faults
from pipeline.sandbox.state import Hook, Json

__all__ = ["Answer", "Api", "Call", "Clock", "Operation", "Refusal", "make_app", "wall_clock"]

Clock: TypeAlias = Callable[[], datetime]
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
_HTML: Final = b"<!DOCTYPE html><html><head><title>Error</title></head><body>upstream</body></html>"


def wall_clock() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """What a handler raises to answer with an error; each API words its body in ``Api.refused``."""

    def __init__(self, status: int, message: str | list[str], code: str = "") -> None:
        super().__init__(status, message, code)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read whole."""

    operation: str
    now: datetime
    base_url: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    raw: bytes = b""
    form: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> Json:
        """
        The body as a JSON object.

        Raises:
            Refusal: 400, it is none.
        """
        try:
            body = orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            raise Refusal(400, "Request body is not a JSON object", "GEN-002")
        return body

    @property
    def bearer(self) -> str:
        """The token of ``Authorization: Bearer …``; empty without one."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer (None: no body; bytes: as they are) and the webhooks the call causes."""

    status: int
    body: Json | bytes | None = None
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A route; ``id`` is the vendor's operationId, ``secured`` says that it needs a token."""

    id: str
    method: str
    path: str
    handle: Callable[[Call], Answer]
    scopes: tuple[str, ...] = ()
    secured: bool = True


class Api(Protocol):
    """What differs between the two vendors."""

    def operations(self) -> tuple[Operation, ...]:
        """Every route."""

    def admit(self, call: Call, operation: Operation) -> None:
        """
        Check token, scopes, headers and limits.

        Raises:
            Refusal: the call is refused.
        """

    def refused(self, refusal: Refusal) -> Json:
        """The vendor's error body."""

    def headers(self, call: Call) -> Mapping[str, str]:
        """What every answer carries, such as rate-limit headers."""

    def throttled_headers(self, call: Call) -> Mapping[str, str]:
        """What a 429 carries of the vendor's own headers."""

    def forget(self, call: Call, *, refresh_too: bool) -> None:
        """Let the call's token be expired, or with its refresh token revoked."""


def make_app(
    api: Api, *, faults: Faults, send: Callable[[tuple[Hook, ...]], Awaitable[None]], clock: Clock
) -> web.Application:
    """An application with a route for each operation of *api*; hooks of an answer are given to *send*."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    for operation in api.operations():
        app.router.add_route(
            operation.method, operation.path, _Route(api, operation, faults, send, clock).answer
        )
    app.router.add_route("*", "/_sandbox/faults", admin_faults(faults))
    return app


class _Route:
    """The life of one request; `answer` is the aiohttp handler."""

    def __init__(
        self,
        api: Api,
        operation: Operation,
        faults: Faults,
        send: Callable[[tuple[Hook, ...]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._api = api
        self._operation = operation
        self._faults = faults
        self._send = send
        self._clock = clock

    async def answer(self, request: web.Request) -> web.StreamResponse:
        call = await self._read(request)
        rules = {rule.kind: rule for rule in self._faults.strike(self._operation.id, ANSWER_KINDS)}
        if latency := rules.get(FaultKind.LATENCY):
            await asyncio.sleep(latency.delay_s)
        early = self._struck(request, call, rules, after=False)
        if early is not None:
            return early
        answer = self._handle(call)
        await self._send(answer.hooks)
        late = self._struck(request, call, rules, after=True)
        return late if late is not None else self._respond(call, answer, rules)

    async def _read(self, request: web.Request) -> Call:
        form: dict[str, Any] = {}
        raw = b""
        if request.content_type.startswith(("multipart/", "application/x-www-form")):
            form = {name: await _form_value(value) for name, value in (await request.post()).items()}
        else:
            raw = await request.read()
        return Call(
            operation=self._operation.id,
            now=self._clock(),
            base_url=f"{request.scheme}://{request.host}",
            params=dict(request.match_info),
            query=request.query,
            headers=request.headers,
            content_type=request.content_type,
            raw=raw,
            form=form,
        )

    def _handle(self, call: Call) -> Answer:
        try:
            self._api.admit(call, self._operation)
            return self._operation.handle(call)
        except Refusal as refusal:
            return Answer(refusal.status, self._api.refused(refusal))

    def _struck(
        self, request: web.Request, call: Call, rules: Mapping[FaultKind, FaultRule], *, after: bool
    ) -> web.Response | None:
        """The answer of a fault that stands in for the operation's own; None without one."""
        if (reset := rules.get(FaultKind.RESET)) and reset.after_effect == after:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)  # never sent: its connection is gone
        if (broken := rules.get(FaultKind.SERVER_ERROR)) and broken.after_effect == after:
            return web.Response(status=broken.status, body=_HTML, content_type="text/html")
        if after:
            return None
        if throttled := rules.get(FaultKind.THROTTLED):
            return self._throttle(call, throttled)
        if FaultKind.EXPIRED_TOKEN in rules or FaultKind.REVOKED_TOKEN in rules:
            self._api.forget(call, refresh_too=FaultKind.REVOKED_TOKEN in rules)
        return None

    def _throttle(self, call: Call, rule: FaultRule) -> web.Response:
        body = self._api.refused(Refusal(429, "Too Many Requests", "GEN-429"))
        headers: dict[str, str] = {}
        if rule.headers:
            headers = {**self._api.throttled_headers(call), "Retry-After": str(rule.retry_after_s)}
        return _json(429, orjson.dumps(body), headers)

    def _respond(
        self, call: Call, answer: Answer, rules: Mapping[FaultKind, FaultRule]
    ) -> web.StreamResponse:
        headers = self._api.headers(call)
        if answer.body is None:
            return web.Response(status=answer.status, headers=headers)
        if isinstance(answer.body, bytes):
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        body = orjson.dumps(answer.body)
        if FaultKind.TRUNCATED in rules:
            body = body[: len(body) // 2]
        if FaultKind.INVALID_JSON in rules:
            return _json(200, _HTML, headers)
        return _json(answer.status, body, headers)


def _json(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _form_value(value: Any) -> Any:
    """A form field's text, or the bytes of an uploaded file."""
    return value.file.read() if isinstance(value, web.FileField) else value


def admin_faults(faults: Faults) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of ``/_sandbox/faults``."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 - no peer known
            raise web.HTTPForbidden
        try:
            return web.json_response(await _administer(faults, request))
        except (ValueError, orjson.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return answer


async def _administer(faults: Faults, request: web.Request) -> Json:
    match request.method:
        case "GET":
            return {"faults": faults.listed(), "struck": faults.struck}
        case "PUT":
            given = orjson.loads(await request.read())
            return {"id": faults.put(FaultRule.from_json(given))}
        case "DELETE":
            if "id" not in request.query:
                faults.clear()
                return {"removed": True}
            return {"removed": faults.remove(int(request.query["id"]))}
        case _:
            raise ValueError("use GET, PUT or DELETE")
