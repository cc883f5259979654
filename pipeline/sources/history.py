"""
What a backfill is asked for: which period, of which accounts, which resources; and what it will take.

Messages and conversations are facts of the period. Contacts, tags, users, accounts and statistics are
state, of which the APIs keep no history: they are fetched as they are now.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final, final

import msgspec
import orjson

from pipeline.checked_yaml import did_you_mean
from pipeline.clients.pages import Walk
from pipeline.errors import ConfigError
from pipeline.instants import Time, from_ms, parse
from pipeline.settings import Settings
from pipeline.sources.scan import Item, Page, Resource, readable

__all__ = [
    "RESOURCES",
    "Account",
    "Asked",
    "Estimate",
    "Period",
    "Selected",
    "accounts",
    "asked",
    "estimated",
    "period",
    "rate",
    "reach",
    "selected",
]

_DAY_MS: Final = 86_400_000

#: Product -> its resources, in the order in which they are fetched: whoever is named by what follows first.
RESOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "sakari": ("contacts", "conversations", "messages"),
    "users": ("tags", "accounts", "users", "contacts", "statistics"),
}

#: Those that are facts; all else is state.
_FACTS: Final = ("messages", "conversations")

#: Requests that one page takes, where it is more than one: a list and details, profiles and their figures.
CALLS: Final[Mapping[str, int]] = {"users.tags": 2, "users.statistics": 2}

_SPAN: Final = re.compile(r"(\d{1,5})([mhd])", re.ASCII)
_SPAN_MS: Final = {"m": 60_000, "h": 3_600_000, "d": _DAY_MS}

#: How far an estimate by looking may be off, as a share.
_CLOSE_ENOUGH: Final = 0.1


@final
class Period(msgspec.Struct, frozen=True):
    """From *since*, included, to *until*, excluded."""

    since: Time
    until: Time

    def holds(self, at: Time | None) -> bool:
        """Whether *at* lies within."""
        return at is not None and self.since <= at < self.until


@final
class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, as a job keeps it; *tenants* and *resources* are spelled out."""

    product: str
    period: Period
    tenants: tuple[str, ...]
    resources: tuple[str, ...]


@final
class Account(msgspec.Struct, frozen=True):
    """The resources of one account or location, in the order in which they are fetched."""

    key: str
    resources: tuple[Resource, ...]


@final
class Selected(msgspec.Struct, frozen=True):
    """What of a page is to be published, and how many items of the period are out of reach by now."""

    items: tuple[Item, ...]
    out_of_reach: int = 0


@final
class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What fetching one resource takes; *items* and *calls* are None where the API does not tell."""

    tenant: str
    account: str
    resource: str
    items: int | None
    calls: int | None


def period(since: str, until: str, now_ms: int, seen_days: int) -> Period:
    """
    The period from *since* to *until*: a day, an instant (RFC 3339), or a span such as ``30d`` before now.

    Raises:
        ConfigError: it cannot be read, is empty, or begins before facts are recognised as seen.
    """
    problems: list[str] = []
    begins = _instant(since, "--since", now_ms, problems)
    ends = _instant(until, "--until", now_ms, problems) if until else from_ms(now_ms)
    if begins and ends and begins >= ends:
        problems.append(f"--since: {begins} is not before --until ({ends})")
    first = reach(now_ms, seen_days)
    if begins and begins < first:
        problems.append(
            f"--since: {begins} is further back than facts are recognised as seen (decode.seen_days: "
            f"{seen_days}), so they would count twice; begin at {first} or later. An older period is "
            "rebuilt whole under an application id of its own, as docs/backfill.md says"
        )
    if problems:
        raise ConfigError(problems)
    return Period(Time(begins), Time(ends))


def asked(
    settings: Settings, product: str, wanted: Period, tenants: Iterable[str], resources: Iterable[str]
) -> Asked:
    """
    What is to be fetched of *product*; without *tenants* or *resources* all of them.

    Raises:
        ConfigError: a name is unknown.
    """
    problems: list[str] = []
    found = Asked(
        product=product,
        period=wanted,
        tenants=_known(tenants, tuple(settings.tenants), "--tenant", problems),
        resources=_known(resources, RESOURCES[product], "--resources", problems),
    )
    if problems:
        raise ConfigError(problems)
    return found


def reach(now_ms: int, seen_days: int) -> Time:
    """
    From when on facts are recognised as seen.

    Decode forgets whole days; of the oldest one it has, nothing is fetched: it may be forgotten while
    records are on their way.
    """
    today = now_ms - now_ms % _DAY_MS
    return from_ms(today - (seen_days - 1) * _DAY_MS)


def accounts(resources: Iterable[Resource], asked: Asked) -> tuple[Account, ...]:
    """What of *resources* was asked for, by account, in the order in which it is fetched."""
    order = [name for name in RESOURCES[asked.product] if name in asked.resources]
    by_account: dict[str, list[Resource]] = {}
    for one in resources:
        if one.product == asked.product and one.tenant in asked.tenants and one.name in order:
            by_account.setdefault(f"{one.tenant}|{one.account}", []).append(one)
    return tuple(
        Account(key, tuple(sorted(found, key=lambda each: order.index(each.name))))
        for key, found in sorted(by_account.items())
    )


def selected(resource: Resource, page: Page, wanted: Period, first: Time) -> Selected:
    """Those items of *page* that are state, or facts of the *wanted* period not before *first*."""
    if resource.product != "sakari" or resource.name not in _FACTS:
        return Selected(page.items)
    items: list[Item] = []
    out_of_reach = 0
    for item in page.items:
        created, closed = _times(item.body)
        if created is None or wanted.holds(created) or wanted.holds(closed):
            # One without a time is published: decode tells what is wrong with it.
            if created is None or created >= first:
                items.append(item)
            else:
                out_of_reach += 1
    return Selected(tuple(items), out_of_reach)


async def estimated(resource: Resource, page_size: int) -> Estimate:
    """
    What fetching *resource* takes: by its first page and, where the API does not count, by a search.

    Raises:
        UpstreamError: the API does not answer.
    """
    items = await _count(resource)
    calls = None
    if items is not None:
        pages = 1 if resource.name in {"statistics", "accounts"} else max(1, ceil(items / page_size))
        calls = pages * CALLS.get(f"{resource.product}.{resource.name}", 1)
    return Estimate(
        tenant=resource.tenant, account=resource.account, resource=resource.name, items=items, calls=calls
    )


def rate(settings: Settings, product: str) -> float:
    """Calls a second that a backfill makes of one account at most."""
    share = settings.backfill.share
    if product == "sakari":
        return settings.sakari.requests_per_s * share
    return settings.users.requests_per_10_s / 10 * share


def _known(given: Iterable[str], known: tuple[str, ...], option: str, problems: list[str]) -> tuple[str, ...]:
    """The names in *given*, all *known* ones where it is empty; what is wrong goes to *problems*."""
    names = [name for text in given for part in text.split(",") if (name := part.strip())]
    problems += [
        f"{option}: {name!r} is unknown{did_you_mean(name, dict.fromkeys(known))}; known: {', '.join(known)}"
        for name in names
        if name not in known
    ]
    return tuple(name for name in known if name in names) if names else known


def _instant(text: str, option: str, now_ms: int, problems: list[str]) -> str:
    if span := _SPAN.fullmatch(text):
        return from_ms(max(0, now_ms - int(span[1]) * _SPAN_MS[span[2]]))
    try:
        if len(text) == len("2030-01-01"):
            return from_ms(round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000))
        return parse(text)
    except ValueError:
        problems.append(
            f"{option}: {text!r} is no time; give a day (2030-01-31, UTC), an instant "
            "(2030-01-31T12:00:00Z) or a span before now (90m, 12h, 30d)"
        )
        return ""


def _times(body: bytes) -> tuple[Time | None, Time | None]:
    """When a message or conversation was created, and when it was closed, where that can be read."""
    item = orjson.loads(body)
    closed = item.get("closed")
    if closed is True:
        closed = _at(item.get("updated"))
    return _time(_at(item.get("created"))), _time(closed)


def _at(moment: Any) -> Any:
    return moment.get("at") if isinstance(moment, dict) else None


def _time(text: Any) -> Time | None:
    try:
        return parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


async def _count(resource: Resource) -> int | None:
    with readable(resource):
        page = await resource.page("")
    if page.next_cursor is None:
        return len(page.items)
    if page.total is not None:
        return max(page.total, len(page.items))
    walk = Walk.at(page.next_cursor, resource.name)
    return await _searched(resource, walk.offset) if walk.after is None else None


async def _searched(resource: Resource, size: int) -> int:
    """About how many items there are: twice as far until nothing is there, then between."""
    filled, empty = size, 2 * size
    while await _any_at(resource, empty):
        filled, empty = empty, 2 * empty
    while empty - filled > max(size, filled * _CLOSE_ENOUGH):
        middle = (filled + empty) // 2
        if await _any_at(resource, middle):
            filled = middle
        else:
            empty = middle
    return empty


async def _any_at(resource: Resource, offset: int) -> bool:
    with readable(resource):
        return bool((await resource.page(msgspec.json.encode(Walk(offset=offset)).decode())).items)
