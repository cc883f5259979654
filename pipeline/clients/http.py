"""
The one narrow door to HTTP, and the one place where foreign errors become ours.

======================================================  ==================
what happens                                            becomes
======================================================  ==================
no connection, reset, timeout, bad URL, bad TLS         `Unavailable`
body cut off, too large, no JSON, HTML, bad encoding    `Unavailable`
3xx (redirects are not followed), 408, 425, 5xx         `Unavailable`
429                                                     `Throttled`
any other 4xx                                           `Rejected`
======================================================  ==================

Error texts are masked, name the operation, and never hold what we sent.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias, final

import aiohttp
import msgspec
import orjson

from pipeline.errors import Rejected, Throttled, Unavailable, UpstreamError
from pipeline.logs import mask

__all__ = ["Answer", "Http", "Observer", "open_session", "retry_after_s"]

#: Told the status and headers of every answer, whatever it is.
Observer: TypeAlias = Callable[[int, Mapping[str, str]], None]

#: A page of 100 messages is some 200 KiB; what is far above is no answer of these APIs.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
#: How much of an error's text is kept, in characters.
MAX_ERROR_TEXT: Final = 300
#: A Retry-After above a day is taken as a day.
MAX_RETRY_AFTER_S: Final = 86_400.0


@final
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A good answer (2xx): *json* is its decoded body, None where it has none."""

    status: int
    headers: Mapping[str, str]
    json: Any


def open_session(*, connections: int = 500) -> aiohttp.ClientSession:
    """A session of at most *connections* connections: no cookies, no proxy from the environment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, limit_per_host=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # each request has its own deadline
        headers={"User-Agent": "sakari-users-pipeline", "Accept": "application/json"},
    )


class Http:
    """Requests with a deadline of *timeout_s* and answers of at most *max_body_bytes*."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float,
        max_body_bytes: int = MAX_BODY_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    async def request(
        self,
        method: str,
        url: str,
        *,
        operation: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        observe: Observer | None = None,
    ) -> Answer:
        """
        Send one request, once; *operation* names it in errors.

        Raises:
            Unavailable: no usable answer.
            Throttled: 429.
            Rejected: any other 4xx.
        """
        body, content_type = _encoded(json, form)
        with _ours(operation, self._timeout_s):
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    method,
                    url,
                    params=query,
                    data=body,
                    headers={**content_type, **(headers or {})},
                    allow_redirects=False,
                ) as response,
            ):
                if observe is not None:
                    observe(response.status, response.headers)
                content = await self._read(response, operation)
                return self._judged(response, content, operation)

    async def _read(self, response: aiohttp.ClientResponse, operation: str) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            content += chunk
            if len(content) > self._max_body_bytes:
                raise Unavailable(f"{operation}: the answer is larger than {self._max_body_bytes} bytes")
        return bytes(content)

    def _judged(self, response: aiohttp.ClientResponse, content: bytes, operation: str) -> Answer:
        status = response.status
        if 200 <= status < 300:
            return Answer(status=status, headers=response.headers, json=_decoded(content, operation))
        text = _told(content)
        if status == 429:
            wish = retry_after_s(response.headers.get("Retry-After"), self._clock())
            raise Throttled(f"{operation}: status 429: {text}", wish)
        if 400 <= status < 500 and status not in {408, 425}:
            raise Rejected(status, f"{operation}: {text}")
        raise Unavailable(f"{operation}: status {status}: {text}")


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """
    Seconds to wait by a ``Retry-After`` *header* (RFC 9110 §10.2.3: seconds or an HTTP-date).

    None where there is none or it cannot be read; at most a day. *now_s* is the wall clock in seconds.
    """
    if header is None:
        return None
    try:
        wish = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        wish = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
    return min(max(wish, 0.0), MAX_RETRY_AFTER_S) if wish == wish else None  # noqa: PLR0124 - NaN


@contextmanager
def _ours(operation: str, timeout_s: float) -> Iterator[None]:
    """Turn every foreign error of a request into one of ours."""
    try:
        yield
    except UpstreamError:
        raise
    except TimeoutError:
        raise Unavailable(f"{operation}: no answer within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, EOFError, ValueError) as error:
        # The chain is cut: some of these quote the request in their texts.
        raise Unavailable(f"{operation}: {_cause(error)}") from None


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port}: {mask(error.strerror or type(error).__name__)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{type(error).__name__}: {mask(error.message)[:MAX_ERROR_TEXT]}"
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL is none"
    return f"{type(error).__name__}: {mask(str(error))[:MAX_ERROR_TEXT]}"


def _encoded(json: Any, form: Mapping[str, str] | None) -> tuple[Any, dict[str, str]]:
    if json is not None:
        return orjson.dumps(json), {"Content-Type": "application/json"}
    if form is not None:
        return aiohttp.FormData(dict(form)), {}
    return None, {}


def _decoded(content: bytes, operation: str) -> Any:
    if not content.strip():
        return None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        what = "HTML instead of JSON" if content.lstrip()[:1] == b"<" else "no valid JSON"
        raise Unavailable(f"{operation}: the answer is {what}") from None


def _told(content: bytes) -> str:
    """What an error's body says of itself; of JSON only the fields that are meant to be read."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        text = content[: 4 * MAX_ERROR_TEXT].decode(errors="replace")
        return mask("an HTML page" if text.lstrip().startswith("<") else text)[:MAX_ERROR_TEXT]
    return mask(_message(body))[:MAX_ERROR_TEXT]


def _message(body: Any) -> str:
    if not isinstance(body, dict):
        return "no reason given"
    error = body.get("error")
    inner = error if isinstance(error, dict) else {"error": error}
    fields = [inner.get(name) for name in ("code", "error", "message", "description")]
    fields += [body.get("message"), body.get("error_description")]
    texts = [", ".join(map(str, field)) if isinstance(field, list) else field for field in fields]
    return ": ".join(text for text in texts if isinstance(text, str) and text) or "no reason given"
