"""
What is polled of each tenant, and how its items become records.

Sakari: contacts, and for reconciling messages and conversations. Users API: location tags with their
details, statistics in the tenant's dialect, social accounts, users, contacts.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal

from pipeline.clients import pages
from pipeline.clients.sakari import SakariClient
from pipeline.clients.users import MAX_PROFILES, UsersClient
from pipeline.identity import native_key
from pipeline.instants import Time, from_ms, parse, to_datetime
from pipeline.settings import PollSettings, Tenant
from pipeline.sources.scan import Item, Page, Resource, item_of

__all__ = ["Now", "resources"]

Now = Callable[[], int]

#: The vendor's statistics query looks back this far.
STATISTICS_SPAN: Final = timedelta(days=7)

#: Where an account of the vendor names its profile.
_PROFILE_FIELDS: Final = ("profileId", "oauthId", "id")


def resources(
    tenants: Mapping[str, Tenant],
    sakari: Mapping[str, SakariClient],
    users: Mapping[str, UsersClient],
    settings: PollSettings,
    now: Now,
) -> tuple[Resource, ...]:
    """
    Everything that is polled; clients are by account and by location, *now* is ms since 1970.

    A tenant without clients is disabled and not polled.
    """
    found: list[Resource] = []
    for name, tenant in tenants.items():
        accounts = [sakari[one.account_id] for one in tenant.sakari if one.account_id in sakari]
        locations = [users[one.location_id] for one in tenant.users if one.location_id in users]
        for account in accounts:
            found += _of_account(name, account, settings, now)
        for location in locations:
            found += _of_location(name, tenant.dialect, location, settings, now)
    return tuple(found)


def _of_account(tenant: str, client: SakariClient, settings: PollSettings, now: Now) -> Iterator[Resource]:
    account = client.account_id

    async def contacts(cursor: str) -> Page:
        page = await client.contacts(cursor, limit=settings.page_size)
        return _page(page, lambda item: _contact(tenant, "s", item))

    async def messages(cursor: str) -> Page:
        page = await client.messages(cursor, limit=settings.page_size)
        since = from_ms(now() - settings.reconcile_days * 86_400_000)
        return _page(page, lambda item: _message(tenant, item, since))

    async def conversations(cursor: str) -> Page:
        page = await client.conversations(cursor, limit=settings.page_size)
        return _page(page, lambda item: item_of(str(item["id"]), _contact_key(tenant, item), item))

    async def contact_exists(identifier: str) -> bool:
        return await client.contact(identifier) is not None

    resource = partial(Resource, tenant=tenant, account=account, product="sakari")
    yield resource(
        name="contacts", interval_s=settings.sakari_contacts_s, page=contacts, exists=contact_exists
    )
    yield resource(name="messages", interval_s=settings.messages_s, page=messages, removable=False)
    yield resource(
        name="conversations", interval_s=settings.conversations_s, page=conversations, removable=False
    )


def _of_location(
    tenant: str, dialect: str, client: UsersClient, settings: PollSettings, now: Now
) -> Iterator[Resource]:
    location = client.location_id

    async def tags(cursor: str) -> Page:
        page = await client.tags(cursor, limit=settings.page_size)
        details = await _details(client, [str(item["_id"]) for item in page.items])
        merged = [{**item, **details.get(str(item["_id"]), {})} for item in page.items]
        return _page(
            pages.Page(merged, page.next_cursor, page.total), lambda item: _plain(tenant, item, "_id")
        )

    async def tag_exists(identifier: str) -> bool:
        found = await client.tag_details([identifier])
        return any(str(tag.get("_id")) == identifier and not tag.get("deleted") for tag in found)

    async def accounts(_: str) -> Page:
        return Page(tuple(_plain(tenant, item, "id") for item in await client.accounts()))

    async def users(cursor: str) -> Page:
        page = await client.users(cursor, limit=settings.page_size)
        return _page(page, lambda item: _plain(tenant, item, "id"))

    async def user_exists(identifier: str) -> bool:
        return await client.user(identifier) is not None

    async def contacts(cursor: str) -> Page:
        page = await client.contacts(cursor, limit=settings.page_size)
        return _page(page, lambda item: _contact(tenant, "u", item))

    async def contact_exists(identifier: str) -> bool:
        return await client.contact(identifier) is not None

    async def statistics(_: str) -> Page:
        observed = from_ms(now() // 60_000 * 60_000)
        return Page(tuple(await _statistics(tenant, dialect, client, observed)))

    resource = partial(Resource, tenant=tenant, account=location, product="users")
    yield resource(name="tags", interval_s=settings.tags_s, page=tags, exists=tag_exists)
    yield resource(name="statistics", interval_s=settings.statistics_s, page=statistics, removable=False)
    yield resource(name="accounts", interval_s=settings.accounts_s, page=accounts)
    yield resource(name="users", interval_s=settings.users_s, page=users, exists=user_exists)
    yield resource(
        name="contacts", interval_s=settings.users_contacts_s, page=contacts, exists=contact_exists
    )


def _page(page: pages.Page, made: Callable[[dict[str, Any]], Item]) -> Page:
    return Page(tuple(made(item) for item in page.items), page.next_cursor, page.total)


def _contact(tenant: str, system: Literal["s", "u"], item: dict[str, Any]) -> Item:
    identifier = str(item["id"])
    return item_of(identifier, native_key(tenant, system, identifier), item)


def _plain(tenant: str, item: dict[str, Any], id_field: str) -> Item:
    identifier = str(item[id_field])
    return item_of(identifier, native_key(tenant, "u", None, identifier), item)


def _contact_key(tenant: str, item: Mapping[str, Any]) -> str:
    contact = item.get("contact")
    contact_id = contact.get("id") if isinstance(contact, dict) else None
    return native_key(tenant, "s", contact_id if isinstance(contact_id, str) else None, str(item["id"]))


def _message(tenant: str, item: dict[str, Any], since: Time) -> Item:
    """A message; one created before *since* is only counted, its facts are out of reach."""
    created = item.get("created")
    at = created.get("at") if isinstance(created, dict) else None
    try:
        recent = not isinstance(at, str) or parse(at) >= since
    except ValueError:
        recent = True  # decode tells what is wrong with it
    return item_of(str(item["id"]), _contact_key(tenant, item), item, published=recent)


async def _details(client: UsersClient, tag_ids: list[str]) -> dict[str, dict[str, Any]]:
    if not tag_ids:
        return {}
    return {str(tag["_id"]): tag for tag in await client.tag_details(tag_ids)}


async def _statistics(tenant: str, dialect: str, client: UsersClient, observed: Time) -> list[Item]:
    """Snapshots: the location's (catalogue), or those of its profiles, a hundred each (vendor)."""
    profiles = sorted({_profile(account) for account in await client.accounts()})
    if dialect == "catalogue":
        answer = await client.location_statistics()
        told = {"results": answer["metrics"], "statisticsId": answer.get("statisticsId")}
        return [_snapshot(tenant, client.location_id, profiles, observed, {"dialect": dialect, **told})]
    found: list[Item] = []
    for start in range(0, len(profiles), MAX_PROFILES):
        part = profiles[start : start + MAX_PROFILES]
        told = {"results": await client.statistics(part), "statisticsId": None}
        found.append(_snapshot(tenant, client.location_id, part, observed, {"dialect": dialect, **told}))
    return found


def _snapshot(
    tenant: str, location_id: str, profiles: list[str], observed: Time, told: dict[str, Any]
) -> Item:
    """
    A snapshot, stamped by us as the API does not date it.

    Its times stand beside what is compared: an unchanged answer is the same item whenever it is read.
    """
    content = {**told, "locationId": location_id, "profileIds": profiles}
    stamped = {
        **content,
        "observedAt": observed,
        "windowStart": parse((to_datetime(observed) - STATISTICS_SPAN).isoformat()),
        "windowEnd": observed,
    }
    identifier = hashlib.sha256("\0".join(profiles).encode()).hexdigest()[:16]
    item = item_of(identifier, native_key(tenant, "u", None, location_id), stamped)
    return Item(item.id, item.key, item.body, compared=item_of("", "", content).body)


def _profile(account: Mapping[str, Any]) -> str:
    return next((str(account[name]) for name in _PROFILE_FIELDS if account.get(name)), "")
