"""One account or location of an API: its limit, its token and its door, in the order they are needed."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.clients.http import Answer, Http
from pipeline.clients.limits import Limiter
from pipeline.clients.tokens import Tokens
from pipeline.errors import Rejected

__all__ = ["Api"]


class Api:
    """Calls below *base_url* with a bearer of *tokens*, within *limiter*, *headers* on each."""

    def __init__(
        self,
        http: Http,
        tokens: Tokens,
        limiter: Limiter,
        *,
        base_url: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._http = http
        self.tokens = tokens
        self._limiter = limiter
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})

    async def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        traceparent: str = "",
    ) -> Answer:
        """
        One call; after a 401 once more with another token, where there is one.

        Raises:
            UpstreamError: see `Http.request`.
        """
        send = partial(
            self._once, method, path, operation=operation, query=query, json=json, traceparent=traceparent
        )
        token = await self.tokens.token()
        try:
            return await send(token=token)
        except Rejected as error:
            if error.status != 401:
                raise
            other = await self.tokens.renewed(token)
            if other == token:
                raise
        return await send(token=other)

    async def found(self, method: str, path: str, *, operation: str) -> Any:
        """The decoded body of a call; None where the API answers 404 or 410."""
        try:
            return (await self.call(method, path, operation=operation)).json
        except Rejected as error:
            if error.status in {404, 410}:
                return None
            raise

    async def _once(
        self,
        method: str,
        path: str,
        *,
        token: str,
        operation: str,
        query: Mapping[str, str] | None,
        json: Any,
        traceparent: str,
    ) -> Answer:
        await self._limiter.acquire(operation)
        headers = {**self._headers, "Authorization": f"Bearer {token}"}
        if traceparent:
            headers["traceparent"] = traceparent
        return await self._http.request(
            method,
            self._base_url + path,
            operation=operation,
            headers=headers,
            query=query,
            json=json,
            observe=self._limiter.observe,
        )
