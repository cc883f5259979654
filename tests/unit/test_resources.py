"""Every polled resource, walked through the real clients over both sandboxes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from pipeline.clients.sakari import SakariClient
from pipeline.clients.tokens import SakariTokens, StaticToken
from pipeline.clients.users import UsersClient
from pipeline.sandbox.http_servers import sandbox_servers
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.users_state import UsersLocation
from pipeline.settings import PollSettings, SakariApiSettings, Tenant, UsersApiSettings
from pipeline.settings import SakariAccount as AccountSettings
from pipeline.sources.resources import resources
from pipeline.sources.scan import Item, Resource
from tests.unit.client_server import door, wide_open

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOW_MS = round(AT.timestamp() * 1000) + 1_234
PEOPLE = 7
PAGE = 3


@dataclass(slots=True, kw_only=True)
class World:
    """Both sandboxes with an account and a location, and what is polled of them."""

    account: SakariAccount
    location: UsersLocation
    state: SandboxState
    found: dict[str, Resource] = field(default_factory=dict)

    async def walked(self, name: str) -> list[Item]:
        """All items of a resource, page after page."""
        items: list[Item] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await self.found[name].page(cursor)
            items += page.items
            cursor = page.next_cursor
        return items


@asynccontextmanager
async def opened(dialect: str = "catalogue") -> AsyncIterator[World]:
    """A world of some people, read in pages of three."""
    state = SandboxState(seed=1)
    account = state.sakari.add_account(name="Acme")
    location = state.users.add_location("Acme")
    world = World(account=account, location=location, state=state)
    _populate(world)
    async with sandbox_servers(state) as servers, door() as http:
        secret = {
            "client_id": {"value": account.client_id},
            "client_secret": {"value": account.client_secret},
        }
        settings = SakariApiSettings(base_url=servers.sakari_url)
        given = AccountSettings.model_validate({"account_id": account.id, **secret})
        sakari = SakariClient(
            http, SakariTokens(http, settings, given), settings, account.id, limiter=wide_open()
        )
        token = state.users.add_static_token(location.id)
        users = UsersClient(
            http,
            StaticToken(lambda: token),
            UsersApiSettings(base_url=servers.users_url),
            location.id,
            company_id=location.company_id,
            limiter=wide_open(),
        )
        tenant = _tenant(dialect, account.id, location.id)
        clients = {account.id: sakari}, {location.id: users}
        made = resources({"acme": tenant}, *clients, PollSettings(page_size=PAGE), lambda: NOW_MS)
        world.found = {f"{one.product}.{one.name}": one for one in made}
        yield world


def _tenant(dialect: str, account: str, location: str) -> Tenant:
    secret = {"value": "x"}
    return Tenant.model_validate(
        {
            "dialect": dialect,
            "sakari": [{"account_id": account, "client_id": secret, "client_secret": secret}],
            "users": [{"location_id": location, "token": secret}],
        }
    )


def _populate(world: World) -> None:
    for number in range(PEOPLE):
        mobile = {"number": f"+1202555010{number}", "country": "US"}
        contact = world.account.put_contact({"firstName": f"P{number}", "mobile": mobile}, at=AT)
        at = AT - timedelta(days=8 if number == 0 else 1)
        world.account.add_message(contact_id=contact.id, text="hello", outgoing=True, at=at)
        world.location.put_contact({"firstName": f"P{number}", "phone": mobile["number"]}, at=AT)
        world.location.put_location_tag(f"tag {number}", at=AT, colour="#fff", description="d")
        world.state.users.put_user({"firstName": f"U{number}", "locationIds": [world.location.id]})
        world.location.put_account(f"Profile {number}")
    world.location.put_statistics({"likes": 3})


@pytest.fixture(params=["catalogue", "vendor"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world in each dialect of statistics."""
    async with opened(request.param) as made:
        yield made


NAMES = [
    "sakari.contacts",
    "sakari.messages",
    "sakari.conversations",
    "users.tags",
    "users.statistics",
    "users.accounts",
    "users.users",
    "users.contacts",
]


async def test_every_resource_of_both_apis_is_polled(world: World) -> None:
    """Those that DESIGN section 6 names, and no other."""
    assert list(world.found) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_a_resource_is_walked_whole(world: World, name: str) -> None:
    """Every item once, as a JSON object under a key of its tenant, over all pages."""
    items = await world.walked(name)
    assert len(items) == (1 if name == "users.statistics" else PEOPLE)
    assert len({item.id for item in items}) == len(items)
    assert all(isinstance(orjson.loads(item.body), dict) for item in items)
    assert {item.key[:7] for item in items} == {"acme:s:" if name.startswith("sakari") else "acme:u:"}


async def test_a_walk_is_repeatable(world: World) -> None:
    """What has not changed is the same item: it is not published again."""
    for name in NAMES:
        one, again = await world.walked(name), await world.walked(name)
        assert [item.compared or item.body for item in one] == [item.compared or item.body for item in again]


async def test_tags_carry_their_details(world: World) -> None:
    """List and details are one item."""
    tags = [orjson.loads(item.body) for item in await world.walked("users.tags")]
    assert {(tag["color"], tag["description"], tag["locationId"]) for tag in tags} == {
        ("#fff", "d", world.location.id)
    }


async def test_messages_are_keyed_by_their_contact_and_old_ones_only_counted(world: World) -> None:
    """Facts older than a week are out of reach."""
    items = await world.walked("sakari.messages")
    assert {item.key for item in items} == {f"acme:s:{contact}" for contact in world.account.contacts}
    assert [item.published for item in items].count(False) == 1


@pytest.mark.parametrize("name", ["sakari.contacts", "users.contacts", "users.users", "users.tags"])
async def test_what_is_removed_is_no_longer_found_by_its_id(world: World, name: str) -> None:
    """The look-up that a tombstone needs."""
    resource, item = world.found[name], (await world.walked(name))[0]
    assert resource.exists is not None
    assert await resource.exists(item.id)
    _remove(world, name, item.id)
    assert not await resource.exists(item.id)


def _remove(world: World, name: str, identifier: str) -> Any:
    match name:
        case "sakari.contacts":
            return world.account.remove_contact(identifier, at=AT)
        case "users.contacts":
            return world.location.remove_contact(identifier, at=AT)
        case "users.users":
            return world.state.users.remove_user(identifier)
        case _:
            return world.location.remove_location_tag(identifier, at=AT)


async def test_a_snapshot_is_stamped_by_us(world: World) -> None:
    """Dialect, location, profiles and a window of the last seven days to the minute."""
    (item,) = await world.walked("users.statistics")
    body = orjson.loads(item.body)
    assert (body["observedAt"], body["windowEnd"]) == ("2030-01-01T12:00:00.000Z", "2030-01-01T12:00:00.000Z")
    assert body["windowStart"] == "2029-12-25T12:00:00.000Z"
    assert (body["locationId"], len(body["profileIds"])) == (world.location.id, PEOPLE)
    assert set(body) == {
        *("dialect", "locationId", "profileIds", "observedAt"),
        *("windowStart", "windowEnd", "statisticsId", "results"),
    }


async def test_a_location_without_profiles_has_no_statistics_to_ask_for() -> None:
    """No failure, and a scan that completes."""
    async with opened("vendor") as world:
        world.location.accounts.clear()
        assert await world.walked("users.statistics") == []


async def test_more_profiles_than_one_question_takes_are_asked_for_in_turn() -> None:
    """A hundred each, no profile left out."""
    async with opened("vendor") as world:
        for number in range(150):
            world.location.put_account(f"More {number}")
        items = await world.walked("users.statistics")
        sizes = [len(orjson.loads(item.body)["profileIds"]) for item in items]
        assert (sizes, len({item.id for item in items})) == ([100, 57], 2)


def test_a_tenant_without_clients_is_not_polled() -> None:
    """A disabled one holds up nobody."""
    tenant = _tenant("vendor", "a", "l")
    assert resources({"acme": tenant}, {}, {}, PollSettings(), lambda: NOW_MS) == ()
