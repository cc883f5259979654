"""Every way in which HTTP can fail becomes one of our errors, and none of them tells a secret."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from pipeline.clients.http import retry_after_s
from pipeline.errors import Rejected, Throttled, Unavailable, UpstreamError
from tests.unit.client_server import Handler, answering, door, serving

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def reset(request: web.Request) -> web.StreamResponse:
    """Cut the connection before any answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Promise more bytes than are sent."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"success": tr')
    assert request.transport is not None
    request.transport.close()
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


async def stuck(request: web.Request) -> web.StreamResponse:
    """Begin an answer and never end it."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"a":')
    await asyncio.Event().wait()
    return response


HTML = b"<!DOCTYPE html><html><body>gateway</body></html>"
FAULTS: dict[str, tuple[Handler, type[UpstreamError]]] = {
    "reset": (reset, Unavailable),
    "cut off": (cut_off, Unavailable),
    "silent": (silent, Unavailable),
    "stuck": (stuck, Unavailable),
    "html": (answering(HTML), Unavailable),
    "half json": (answering(b'{"data": [{"id": "1'), Unavailable),
    "not utf-8": (answering(b'{"a": "\xff"}'), Unavailable),
    "too large": (answering(b" " * 20_000), Unavailable),
    "bad gzip": (answering(b"nonsense", headers={"Content-Encoding": "gzip"}), Unavailable),
    "redirect": (answering(b"", 302, {"Location": "http://127.0.0.1:9/"}), Unavailable),
    "request timeout": (answering({}, 408), Unavailable),
    "server error": (answering({"message": "oops"}, 500), Unavailable),
    "gateway": (answering(HTML, 503), Unavailable),
    "throttled": (answering({}, 429), Throttled),
    "bad request": (answering({"statusCode": 400, "message": "no"}, 400), Rejected),
    "unauthorised": (answering({}, 401), Rejected),
    "unprocessable": (answering({"statusCode": 422, "message": ["a", "b"]}, 422), Rejected),
    "html 404": (answering(HTML, 404), Rejected),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_of_a_server_becomes_the_error_that_the_table_names(name: str) -> None:
    """Whatever a server does, the caller meets exactly one class of ours that names the operation."""
    handler, expected = FAULTS[name]
    async with serving(handler) as url, door(timeout_s=0.3, max_body_bytes=10_000) as http:
        with pytest.raises(UpstreamError) as caught:
            await http.request("GET", url, operation="things.list")
    assert type(caught.value) is expected
    assert "things.list" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "not a url", "https://[::1"]
)
async def test_a_place_that_cannot_be_reached_is_unavailable(url: str) -> None:
    """Refused connections, unknown hosts and unusable URLs are `Unavailable`."""
    async with door(timeout_s=5) as http:
        with pytest.raises(Unavailable, match=r"^things\.list: "):
            await http.request("GET", url, operation="things.list")


async def test_a_cancelled_request_stays_cancelled() -> None:
    """Cancellation is nobody's fault: it passes through unmapped."""
    async with serving(silent) as url, door(timeout_s=30) as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                with pytest.raises(asyncio.CancelledError):
                    await http.request("GET", url, operation="things.list")


async def test_an_error_tells_no_secret_and_nothing_that_was_sent() -> None:
    """Neither phone numbers nor tokens of an answer, nor the request's body, reach the error's text."""
    body = {"message": "+14155550123 has token=abcdefgh12345678", "echo": "what we sent"}
    async with serving(answering(body, 400)) as url, door() as http:
        with pytest.raises(Rejected) as caught:
            await http.request("POST", url, operation="x", json={"secret": "what we sent"})
    assert "14155550123" not in str(caught.value)
    assert "abcdefgh12345678" not in str(caught.value)
    assert "what we sent" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"statusCode": 422, "message": ["a is bad", "b too"], "error": "Unprocessable"}, "a is bad, b too"),
        ({"success": False, "error": {"code": "GEN-002", "message": "bad body"}}, "GEN-002: bad body"),
        ({"error": "invalid_grant", "error_description": "expired"}, "invalid_grant: expired"),
        ([], "no reason given"),
    ],
)
async def test_a_refusal_tells_what_the_api_said(body: object, told: str) -> None:
    """Each vendor's shape of an error is read; the operator sees its own words."""
    async with serving(answering(body, 422)) as url, door() as http:
        with pytest.raises(Rejected) as caught:
            await http.request("GET", url, operation="x")
    assert told in caught.value.body
    assert caught.value.status == 422


async def test_an_answer_without_a_body_is_none() -> None:
    """204 is a good answer with nothing in it."""
    async with serving(answering(b"", 204)) as url, door() as http:
        answer = await http.request("DELETE", url, operation="x")
    assert (answer.status, answer.json) == (204, None)


async def test_the_observer_sees_the_headers_of_refusals_too() -> None:
    """Limits are corrected by every answer, the 429 before all."""
    seen: list[tuple[int, str]] = []
    async with serving(answering({}, 429, {"X-RateLimit-Max": "7"})) as url, door() as http:
        with pytest.raises(Throttled):
            await http.request(
                "GET",
                url,
                operation="x",
                observe=lambda status, headers: seen.append((status, headers["x-ratelimit-max"])),
            )
    assert seen == [(429, "7")]


async def test_a_429_carries_the_wish_of_its_retry_after() -> None:
    """``Retry-After`` reaches whoever backs off."""
    async with serving(answering({}, 429, {"Retry-After": "17"})) as url, door() as http:
        with pytest.raises(Throttled) as caught:
            await http.request("GET", url, operation="x")
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        ("999999999", 86_400.0),
        ("inf", 86_400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 are understood, the past is now, nonsense is no wish, a day is the most."""
    assert retry_after_s(header, NOW.timestamp()) == seconds
