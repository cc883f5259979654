"""
Sakari's API (FACTS §1): what the pollers and the doctor need of it.

Lists are walked by offset. The end is ``hasNext`` false where it is told, else a short page; an empty
page that says there are more does not end the walk, and ``totalCount`` serves for estimates only.
"""

from typing import Any
from urllib.parse import quote

from pipeline.clients.api import Api
from pipeline.clients.http import Http
from pipeline.clients.limits import Limiter, RateLimiter, SparingLimiter
from pipeline.clients.pages import MAX_PAGES, Page, Walk, counted, field, items_of, object_of
from pipeline.clients.tokens import Tokens
from pipeline.errors import Throttled, Unavailable
from pipeline.settings import BackfillSettings, SakariApiSettings

__all__ = ["SakariClient", "sakari_limiter"]

#: The largest page of Sakari's lists.
PAGE_SIZE = 100


def sakari_limiter(settings: SakariApiSettings, sparing: BackfillSettings | None = None) -> Limiter:
    """The limit of one account: our own, as Sakari publishes none; *sparing* takes a share of it."""
    if sparing is not None:
        return SparingLimiter(
            requests=settings.requests_per_s, interval_s=1.0, share=sparing.share, reserve=sparing.reserve
        )
    return RateLimiter(requests=max(1, round(settings.requests_per_s)), interval_s=1.0)


class SakariClient:
    """One account of Sakari."""

    def __init__(
        self,
        http: Http,
        tokens: Tokens,
        settings: SakariApiSettings,
        account_id: str,
        *,
        limiter: Limiter | None = None,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self.account_id = account_id
        self._api = Api(http, tokens, limiter or sakari_limiter(settings), base_url=settings.base_url)
        self._root = f"/v1/accounts/{quote(account_id, safe='')}"
        self._max_pages = max_pages

    async def check(self) -> None:
        """
        Get a token and read one contact, as the doctor does.

        Raises:
            UpstreamError: the account cannot be used as it is configured.
        """
        await self.contacts(limit=1)

    async def contacts(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """``contacts.fetchAll``: one page of contacts."""
        return await self._page("contacts", "contacts.fetchAll", cursor, limit)

    async def messages(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """``messages.fetchAll``: one page of messages."""
        return await self._page("messages", "messages.fetchAll", cursor, limit)

    async def conversations(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """``conversations.fetchAll``: one page of conversations."""
        return await self._page("conversations", "conversations.fetchAll", cursor, limit)

    async def contact(self, contact_id: str) -> dict[str, Any] | None:
        """``contacts.fetch``: the contact, None where there is none (404 or 410)."""
        return await self._one("contacts", "contacts.fetch", contact_id)

    async def message(self, message_id: str) -> dict[str, Any] | None:
        """``messages.fetch``: the message, None where there is none (404 or 410)."""
        return await self._one("messages", "messages.fetch", message_id)

    async def conversation(self, conversation_id: str) -> dict[str, Any] | None:
        """``conversations.fetch``: the conversation, None where there is none (404 or 410)."""
        return await self._one("conversations", "conversations.fetch", conversation_id)

    async def webhooks(self) -> list[dict[str, Any]]:
        """``webhooks.fetchAll``: subscriptions; each has a ``url`` or ``destination`` but maybe no id."""
        operation = "webhooks.fetchAll"
        answer = await self._api.call("GET", f"{self._root}/webhooks", operation=operation)
        listed = field(_good(answer.json, operation), "data", operation)
        if not isinstance(listed, list):
            raise Unavailable(f"{operation}: data is no list")
        return [object_of(item, f"{operation}: data[{index}]") for index, item in enumerate(listed)]

    async def subscribe(self, url: str, event_types: tuple[str, ...]) -> None:
        """``webhooks.subscribe``: send *event_types* to *url* from now on."""
        operation = "webhooks.subscribe"
        body = {"url": url, "eventTypes": list(event_types)}
        answer = await self._api.call("POST", f"{self._root}/webhooks", operation=operation, json=body)
        _good(answer.json, operation)

    async def unsubscribe(self, url: str) -> None:
        """``webhooks.unsubscribe``: send nothing to *url* any more."""
        path = f"{self._root}/webhooks/{quote(url, safe='')}"
        await self._api.call("DELETE", path, operation="webhooks.unsubscribe")

    async def _page(self, resource: str, operation: str, cursor: str, limit: int) -> Page:
        walk = Walk.at(cursor, operation)
        query = {"offset": str(walk.offset), "limit": str(limit)}
        answer = await self._api.call("GET", f"{self._root}/{resource}", operation=operation, query=query)
        body = _good(answer.json, operation)
        items = items_of(body, "data", operation)
        size, total = _size(body, limit), counted(body, "pagination.totalCount")
        if not _more(body, len(items), size):
            return Page(items, None, total)
        ids = [str(item["id"]) for item in items]
        onward = walk.onward(ids, offset=walk.offset + size)
        return Page(items, onward.checked(walk, ids, operation, self._max_pages), total)

    async def _one(self, resource: str, operation: str, identity: str) -> dict[str, Any] | None:
        path = f"{self._root}/{resource}/{quote(identity, safe='')}"
        body = await self._api.found("GET", path, operation=operation)
        if body is None:
            return None
        return object_of(field(_good(body, operation), "data", operation), f"{operation}: data")


def _good(body: Any, operation: str) -> dict[str, Any]:
    """*body*, unless it says ``success: false``."""
    envelope = object_of(body, operation)
    if envelope.get("success") is False:
        error = envelope.get("error")
        code = str(error.get("code")) if isinstance(error, dict) else "no code"
        # MSG-028: throttled, will be retried
        raise (Throttled if code == "MSG-028" else Unavailable)(f"{operation}: success is false ({code})")
    return envelope


def _size(body: dict[str, Any], asked: int) -> int:
    """How many items a full page has: a server may allow fewer than were asked for."""
    pagination = body.get("pagination")
    told = pagination.get("limit") if isinstance(pagination, dict) else None
    return told if isinstance(told, int) and 0 < told <= asked else asked


def _more(body: dict[str, Any], count: int, size: int) -> bool:
    pagination = body.get("pagination")
    told = pagination.get("hasNext") if isinstance(pagination, dict) else None
    return told if isinstance(told, bool) else count >= size
