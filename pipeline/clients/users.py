"""
The Users API (HighLevel, FACTS §2): what pollers, the statistics sink and the doctor need of it.

A client is for one location. Both dialects of statistics are here; which is used is the caller's choice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from pipeline.clients.api import Api
from pipeline.clients.http import Http
from pipeline.clients.limits import Limiter, RateLimiter, SparingLimiter
from pipeline.clients.pages import MAX_PAGES, Page, Walk, counted, field, items_of, object_of
from pipeline.clients.tokens import Tokens
from pipeline.errors import Rejected, Unavailable
from pipeline.settings import BackfillSettings, UsersApiSettings

__all__ = ["NEEDED_SCOPES", "UsersClient", "users_limiter"]

PAGE_SIZE: Final = 100
#: The most profiles that one statistics query takes.
MAX_PROFILES: Final = 100

#: What each dialect needs of a location's token; ask for no more.
NEEDED_SCOPES: Final[Mapping[str, frozenset[str]]] = {
    "catalogue": frozenset(
        {
            "socialplanner/tag.readonly",
            "socialplanner/statistics.readonly",
            "socialplanner/account.readonly",
            "users.readonly",
            "contacts.readonly",
        }
    ),
    "vendor": frozenset(
        {
            "socialplanner/tag.readonly",
            "socialplanner/statistics.readonly",
            "socialplanner/account.readonly",
            "users.readonly",
            "contacts.readonly",
            "contacts.write",
            "locations/customValues.readonly",
            "locations/customValues.write",
            "locations/customFields.readonly",
            "locations/customFields.write",
        }
    ),
}


class _Listing(NamedTuple):
    """A list walked by ``skip`` and ``limit``: where it is, and where in its answers things stand."""

    operation: str
    path: str
    items_at: str
    count_at: str
    id_field: str


_TAGS: Final = _Listing(
    "tags.list", "/social-media-posting/{location}/tags", "results.tags", "results.count", "_id"
)
_USERS: Final = _Listing("users.search", "/users/search", "users", "count", "id")


def users_limiter(settings: UsersApiSettings, sparing: BackfillSettings | None = None) -> Limiter:
    """The limit of one location; *sparing* takes a share of it."""
    if sparing is not None:
        return SparingLimiter(
            requests=settings.requests_per_10_s,
            interval_s=10.0,
            per_day=settings.requests_per_day,
            share=sparing.share,
            reserve=sparing.reserve,
        )
    return RateLimiter(
        requests=settings.requests_per_10_s, interval_s=10.0, per_day=settings.requests_per_day
    )


class UsersClient:
    """One location of the Users API; *company_id* is what searching users needs."""

    def __init__(
        self,
        http: Http,
        tokens: Tokens,
        settings: UsersApiSettings,
        location_id: str,
        *,
        company_id: str = "",
        limiter: Limiter | None = None,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self.location_id = location_id
        self.company_id = company_id
        self._tokens = tokens
        self._api = Api(
            http,
            tokens,
            limiter or users_limiter(settings),
            base_url=settings.base_url,
            headers={"Version": settings.version},
        )
        self._here = quote(location_id, safe="")
        self._max_pages = max_pages

    async def check(self, dialect: str) -> frozenset[str]:
        """
        Read one tag, as the doctor does; the scopes of *dialect* that are known to be missing.

        Raises:
            UpstreamError: the location cannot be used as it is configured.
        """
        await self.tags(limit=1)
        granted = self._tokens.scopes
        return NEEDED_SCOPES[dialect] - frozenset(granted) if granted else frozenset()

    # -- what is polled ----------------------------------------------------------------------------

    async def tags(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """One page of the social planner's tags, removed ones (``deleted``) included; ids in ``_id``."""
        return await self._skipping(_TAGS, {}, cursor, limit)

    async def tag_details(self, tag_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The tags with *tag_ids* and their details; those that are gone are left out by the API."""
        path = f"/social-media-posting/{self._here}/tags/details"
        body = {"tagIds": list(tag_ids)}
        answer = await self._api.call("POST", path, operation="tags.details", json=body)
        return items_of(answer.json, "results.tags", "tags.details", "_id")

    async def accounts(self) -> list[dict[str, Any]]:
        """All social profiles of the location."""
        path = f"/social-media-posting/{self._here}/accounts"
        answer = await self._api.call("GET", path, operation="accounts.list")
        return items_of(answer.json, "results.accounts", "accounts.list")

    async def users(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """One page of the people who work with the location."""
        query = {"locationId": self.location_id}
        if self.company_id:
            query["companyId"] = self.company_id
        return await self._skipping(_USERS, query, cursor, limit)

    async def contacts(self, cursor: str = "", *, limit: int = PAGE_SIZE) -> Page:
        """One page of contacts, by the API's own cursor (``searchAfter``, left out of the items)."""
        operation = "contacts.search"
        walk = Walk.at(cursor, operation)
        body: dict[str, Any] = {"locationId": self.location_id, "pageLimit": limit}
        if walk.after is not None:
            body["searchAfter"] = walk.after
        answer = await self._api.call("POST", "/contacts/search", operation=operation, json=body)
        listed = items_of(answer.json, "contacts", operation)
        items = [{name: item[name] for name in item if name != "searchAfter"} for item in listed]
        total = counted(answer.json, "total")
        if len(listed) < limit:
            return Page(items, None, total)
        ids = [str(item["id"]) for item in items]
        after = field(listed[-1], "searchAfter", f"{operation}: contacts[{len(listed) - 1}]")
        onward = walk.onward(ids, after=after)
        return Page(items, onward.checked(walk, ids, operation, self._max_pages), total)

    async def contact(self, contact_id: str) -> dict[str, Any] | None:
        """The contact, None where there is none (404 or 410)."""
        path = f"/contacts/{quote(contact_id, safe='')}"
        body = await self._api.found("GET", path, operation="contacts.get")
        return None if body is None else object_of(field(body, "contact", "contacts.get"), "contacts.get")

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """The user, None where there is none (404 or 410)."""
        path = f"/users/{quote(user_id, safe='')}"
        body = await self._api.found("GET", path, operation="users.get")
        return None if body is None else object_of(body, "users.get")

    async def statistics(self, profile_ids: Sequence[str]) -> dict[str, Any]:
        """Vendor dialect: ``results`` over the last 7 days of at most 100 *profile_ids*."""
        operation = "statistics.query"
        answer = await self._api.call(
            "POST",
            "/social-media-posting/statistics",
            operation=operation,
            query={"locationId": self.location_id},
            json={"profileIds": list(profile_ids)},
        )
        return object_of(field(answer.json, "results", operation), f"{operation}: results")

    async def location_statistics(self) -> dict[str, Any]:
        """Catalogue dialect: ``{statisticsId, locationId, metrics}`` of the location."""
        operation = "statistics.read"
        query = {"locationId": self.location_id}
        path = "/socialplanner/statistics.readonly"
        body = (await self._api.call("GET", path, operation=operation, query=query)).json
        object_of(field(body, "metrics", operation), f"{operation}: metrics")
        return object_of(body, operation)

    # -- what the sink writes ----------------------------------------------------------------------

    async def submit_statistics(self, body: Mapping[str, Any], *, traceparent: str = "") -> int:
        """Catalogue: submit ``{statisticsId, locationId, timestamp, userCount, metrics}``; the status."""
        answer = await self._api.call(
            "POST",
            "/social-media-posting/statistics",
            operation="statistics.submit",
            json=body,
            traceparent=traceparent,
        )
        return answer.status

    async def put_contact_fields(
        self, contact_id: str, fields: Mapping[str, str], *, traceparent: str = ""
    ) -> int:
        """Set custom fields (id -> value) of a contact; the others stay. Returns the status."""
        listed = [{"id": identity, "field_value": value} for identity, value in fields.items()]
        answer = await self._api.call(
            "PUT",
            f"/contacts/{quote(contact_id, safe='')}",
            operation="contacts.update",
            json={"customFields": listed},
            traceparent=traceparent,
        )
        return answer.status

    async def custom_values(self) -> list[dict[str, Any]]:
        """The location's custom values: ``{id, name, value, fieldKey}``."""
        answer = await self._api.call("GET", self._settings("Values"), operation="custom-values.list")
        return items_of(answer.json, "customValues", "custom-values.list")

    async def create_custom_value(self, name: str, value: str, *, traceparent: str = "") -> str:
        """Create a custom value; its id."""
        return await self._create("Value", {"name": name, "value": value}, traceparent)

    async def update_custom_value(
        self, value_id: str, name: str, value: str, *, traceparent: str = ""
    ) -> int:
        """Change a custom value; the status."""
        path = f"{self._settings('Values')}/{quote(value_id, safe='')}"
        body = {"name": name, "value": value}
        answer = await self._api.call(
            "PUT", path, operation="custom-values.update", json=body, traceparent=traceparent
        )
        return answer.status

    async def delete_custom_value(self, value_id: str) -> None:
        """Take a custom value away; that it is gone already is as good."""
        path = f"{self._settings('Values')}/{quote(value_id, safe='')}"
        try:
            await self._api.call("DELETE", path, operation="custom-values.delete")
        except Rejected as error:
            if error.status not in {404, 410}:
                raise

    async def custom_fields(self) -> list[dict[str, Any]]:
        """The location's custom fields of contacts: ``{id, name, fieldKey, dataType}``."""
        answer = await self._api.call(
            "GET", self._settings("Fields"), operation="custom-fields.list", query={"model": "contact"}
        )
        return items_of(answer.json, "customFields", "custom-fields.list")

    async def create_custom_field(self, name: str, data_type: str = "TEXT", *, traceparent: str = "") -> str:
        """Create a custom field of contacts; its id."""
        return await self._create(
            "Field", {"name": name, "dataType": data_type, "model": "contact"}, traceparent
        )

    async def _create(self, what: str, body: dict[str, str], traceparent: str) -> str:
        operation = f"custom-{what.lower()}s.create"
        answer = await self._api.call(
            "POST", self._settings(f"{what}s"), operation=operation, json=body, traceparent=traceparent
        )
        identity = field(answer.json, f"custom{what}.id", operation)
        if not isinstance(identity, str) or not identity:
            raise Unavailable(f"{operation}: custom{what}.id is no text")
        return identity

    def _settings(self, what: str) -> str:
        return f"/locations/{self._here}/custom{what}"

    async def _skipping(self, listing: _Listing, query: dict[str, str], cursor: str, limit: int) -> Page:
        """One page of a list that is walked by ``skip`` and ``limit``; it counts itself, not always truly."""
        walk = Walk.at(cursor, listing.operation)
        asked = {**query, "limit": str(limit), "skip": str(walk.offset)}
        path = listing.path.format(location=self._here)
        body = (await self._api.call("GET", path, operation=listing.operation, query=asked)).json
        items = items_of(body, listing.items_at, listing.operation, listing.id_field)
        total = counted(body, listing.count_at)
        if len(items) < limit and not (total or 0) > walk.offset + limit:
            return Page(items, None, total)
        ids = [str(item[listing.id_field]) for item in items]
        onward = walk.onward(ids, offset=walk.offset + limit)
        return Page(items, onward.checked(walk, ids, listing.operation, self._max_pages), total)
