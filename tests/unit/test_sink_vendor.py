"""The vendor's dialect against the sandbox of the Users API: days as custom values, contacts' fields."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from pipeline.clients.tokens import StaticToken
from pipeline.clients.users import UsersClient
from pipeline.errors import Rejected, Unavailable
from pipeline.instants import Time, to_ms
from pipeline.sandbox.faults import FaultKind, FaultRule
from pipeline.sandbox.http_servers import SandboxServers, sandbox_servers
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.users_state import UsersLocation
from pipeline.settings import UsersApiSettings
from pipeline.sinks.statistics.state import contact_fields
from pipeline.sinks.statistics.vendor import MEASURES, VendorLocation, custom_values
from tests.unit.client_server import door, wide_open
from tests.unit.sink_context import TRACE, engaged, window

AT = datetime(2030, 1, 1, tzinfo=UTC)
#: within the first day of `window`, and after the fifth
EARLY, LATE = to_ms(Time("2030-01-01T10:00:00.000Z")), to_ms(Time("2030-01-06T10:00:00.000Z"))


class Place:
    """A location of the sandbox, and as many processes that write to it as wanted."""

    def __init__(self, servers: SandboxServers, location: UsersLocation, client: UsersClient) -> None:
        self.servers = servers
        self.location = location
        self.client = client

    def writer(self) -> VendorLocation:
        """A process that writes to the location."""
        return VendorLocation(self.client)

    @property
    def values(self) -> dict[str, str]:
        """What the location shows."""
        return {each["name"]: each["value"] for each in self.location.custom_values.values()}

    def fails(self, operation: str, kind: FaultKind, *, after_effect: bool = False) -> None:
        """The next call of *operation* fails."""
        self.servers.faults.put(
            FaultRule(kind=kind, operation=operation, next_calls=1, after_effect=after_effect)
        )


@asynccontextmanager
async def opened() -> AsyncIterator[Place]:
    """A sandbox with one location and a contact."""
    state = SandboxState(seed=1)
    location = state.users.add_location("acme")
    token = state.users.add_static_token(location.id)
    async with sandbox_servers(state) as servers, door() as http:
        settings = UsersApiSettings(base_url=servers.users_url)
        client = UsersClient(http, StaticToken(lambda: token), settings, location.id, limiter=wide_open())
        yield Place(servers, location, client)


async def test_a_day_is_shown_as_custom_values() -> None:
    """Each measure of the day has a value of its own, and so has the day."""
    async with opened() as place:
        status = await place.writer().put_window(window().value, EARLY, TRACE)
    assert status == 201
    assert place.values == custom_values(window().value)
    assert place.values["engagement/all/sent"] == "3"
    assert len(place.values) == len(MEASURES) + 1


async def test_only_what_changed_is_written() -> None:
    """A repeat writes nothing, and a changed measure is the only one written."""
    async with opened() as place:
        writer = place.writer()
        await writer.put_window(window().value, EARLY, TRACE)
        place.fails("create-custom-value", FaultKind.SERVER_ERROR)
        place.fails("update-custom-value", FaultKind.SERVER_ERROR)
        assert await writer.put_window(window().value, EARLY, TRACE) == 200
        with pytest.raises(Unavailable):
            await writer.put_window(window(2, sent=9).value, EARLY, TRACE)
        await writer.put_window(window(2, sent=9).value, EARLY, TRACE)
    assert place.values["engagement/all/sent"] == "9"


async def test_an_older_day_never_replaces_a_newer_one() -> None:
    """Days come by way of different partitions and processes; the newest one stays."""
    async with opened() as place:
        ours, theirs = place.writer(), place.writer()
        await ours.put_window(window(day=3).value, LATE, TRACE)
        await theirs.put_window(window(day=5, sent=50).value, LATE, TRACE)
        assert await ours.put_window(window(2, day=4).value, LATE, TRACE) is None
    assert place.values["engagement/all/day"] == "2030-01-05T00:00:00.000Z"
    assert place.values["engagement/all/sent"] == "50"


async def test_what_another_process_wrote_over_it_is_mended() -> None:
    """An older day that slipped in is written over by the next value of the newest day, all of it."""
    async with opened() as place:
        writer = place.writer()
        await writer.put_window(window(day=1, sent=50).value, EARLY, TRACE)
        for shown in [*place.location.custom_values.values()]:
            place.location.put_custom_value(shown["name"], "0", value_id=shown["id"])
        await writer.put_window(window(2, day=1, sent=51).value, EARLY, TRACE)
    assert place.values == custom_values(window(2, day=1, sent=51).value)


async def test_each_dimension_has_its_own_newest_day() -> None:
    """A tag that was quiet today still shows its last day."""
    async with opened() as place:
        writer = place.writer()
        await writer.put_window(window(day=5).value, LATE, TRACE)
        assert await writer.put_window(window(dimension="tag:id:7", day=2).value, LATE, TRACE) == 201
    assert place.values["engagement/tag:id:7/day"] == "2030-01-02T00:00:00.000Z"


async def test_a_value_that_was_created_without_an_answer_is_not_created_twice() -> None:
    """When the answer to a creation is lost the location is read before anything is made again."""
    async with opened() as place:
        writer = place.writer()
        place.fails("create-custom-value", FaultKind.SERVER_ERROR, after_effect=True)
        with pytest.raises(Unavailable):
            await writer.put_window(window().value, EARLY, TRACE)
        await writer.put_window(window().value, EARLY, TRACE)
    names = [each["name"] for each in place.location.custom_values.values()]
    assert len(names) == len(set(names))


async def test_a_value_that_somebody_deleted_is_made_again() -> None:
    """An id that is gone is no reason to fail."""
    async with opened() as place:
        writer = place.writer()
        await writer.put_window(window().value, EARLY, TRACE)
        place.location.custom_values.clear()
        await writer.put_window(window(2, sent=9).value, EARLY, TRACE)
    assert place.values["engagement/all/sent"] == "9"


async def test_a_contacts_fields_are_made_and_set() -> None:
    """Fields that the location does not have are created once, then set by their ids."""
    async with opened() as place:
        contact = place.location.put_contact({"firstName": "Ada"}, at=AT).value["id"]
        fields = contact_fields(engaged(66.6).value)
        assert await place.writer().put_contact(contact, fields, TRACE) == 200
        await place.writer().put_contact(contact, {**fields, "engagement_score": "12.0"}, TRACE)
    names = {each["id"]: each["name"] for each in place.location.custom_fields.values()}
    held = {names[each["id"]]: each["value"] for each in place.location.contact(contact)["customFields"]}
    assert held == {**fields, "engagement_score": "12.0"}
    assert sorted(names.values()) == sorted(fields)


async def test_a_field_that_was_created_without_an_answer_is_found() -> None:
    """When the answer to a creation is lost the field is found by its name."""
    async with opened() as place:
        contact = place.location.put_contact({"firstName": "Ada"}, at=AT).value["id"]
        place.fails("create-custom-field", FaultKind.RESET, after_effect=True)
        await place.writer().put_contact(contact, {"engagement_score": "1.0"}, TRACE)
    assert len(place.location.custom_fields) == 1


async def test_a_contact_that_is_gone_is_a_refusal() -> None:
    """Nothing can be set on a contact that was removed: `Rejected`, to be dead-lettered."""
    async with opened() as place:
        with pytest.raises(Rejected) as caught:
            await place.writer().put_contact("nobody", {"engagement_score": "1.0"}, TRACE)
    assert caught.value.status in {400, 404}


async def test_a_value_that_was_created_twice_is_shown_once() -> None:
    """What a killed process created without knowing it does not stay beside the value that is kept up."""
    async with opened() as place:
        await place.writer().put_window(window().value, EARLY, TRACE)
        place.location.put_custom_value("engagement/all/sent", "1")
        place.location.put_custom_value("theirs", "1")
        place.location.put_custom_value("theirs", "2")
        await place.writer().put_window(window(2, sent=51).value, EARLY, TRACE)
        names = [each["name"] for each in place.location.custom_values.values()]
    assert place.values["engagement/all/sent"] == "51"
    assert (names.count("engagement/all/sent"), names.count("theirs")) == (1, 2)
