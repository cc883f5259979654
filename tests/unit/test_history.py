"""What a backfill is asked for: periods, names, what of a page is meant, and what it will take."""

import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.instants import Time, to_ms
from pipeline.settings import BackfillSettings, Settings
from pipeline.sources.history import RESOURCES, Period, asked, estimated, period, rate, reach, selected
from pipeline.sources.scan import Item, Page, Resource
from tests.unit.backfill_world import opened

NOW = Time("2030-03-01T06:30:00.000Z")
NOW_MS = to_ms(NOW)
SEEN_DAYS = 45
FEBRUARY = Period(Time("2030-02-01T00:00:00.000Z"), Time("2030-03-01T00:00:00.000Z"))


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("2030-02-01", "2030-02-01T00:00:00.000Z"),
        ("2030-02-01T12:00:00Z", "2030-02-01T12:00:00.000Z"),
        ("2030-02-01T12:00:00+02:00", "2030-02-01T10:00:00.000Z"),
        ("30d", "2030-01-30T06:30:00.000Z"),
        ("12h", "2030-02-28T18:30:00.000Z"),
        ("90m", "2030-03-01T05:00:00.000Z"),
    ],
)
def test_a_period_begins_at_a_day_an_instant_or_a_span_ago(text: str, begins: str) -> None:
    """And ends now where nothing else is said."""
    assert period(text, "", NOW_MS, SEEN_DAYS) == Period(Time(begins), NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "2030-13-01", "30", "-3d", "٣d", "2030-02-30"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """The option is named, and what would be one."""
    with pytest.raises(ConfigError, match=r"--since: .* is no time; give a day"):
        period(text, "", NOW_MS, SEEN_DAYS)


def test_a_period_that_is_empty_is_refused() -> None:
    """It begins before it ends."""
    with pytest.raises(ConfigError, match="is not before --until"):
        period("1d", "2d", NOW_MS, SEEN_DAYS)


def test_a_period_older_than_facts_are_recognised_is_refused() -> None:
    """It would count twice; the earliest possible time is told, and is possible."""
    first = reach(NOW_MS, SEEN_DAYS)
    assert first == "2030-01-16T00:00:00.000Z"
    with pytest.raises(ConfigError, match=f"decode.seen_days: 45.*begin at {first} or later.*rebuilt whole"):
        period("2030-01-15T23:59:59Z", "", NOW_MS, SEEN_DAYS)
    assert period(first, "", NOW_MS, SEEN_DAYS).since == first


def test_unknown_names_are_refused_all_at_once() -> None:
    """Each with what it may have meant."""
    with pytest.raises(ConfigError) as caught:
        asked(Settings(), "sakari", FEBRUARY, ("acme",), ("mesages,contacts",))
    assert len(caught.value.problems) == 2
    assert "did you mean 'messages'" in caught.value.problems[1]


def test_resources_keep_their_order_however_they_are_named() -> None:
    """Contacts first; without names all of them."""
    given = ("messages", "contacts,messages")
    assert asked(Settings(), "sakari", FEBRUARY, (), given).resources == ("contacts", "messages")
    assert asked(Settings(), "users", FEBRUARY, (), ()).resources == RESOURCES["users"]


async def _unread(_: str) -> Page:
    return Page(())


def resource(name: str, product: str = "sakari") -> Resource:
    """A resource that is not read."""
    return Resource(
        tenant="acme", account="a", product=product, name=name, interval_s=1, page=_unread, removable=False
    )


def picked(name: str, *bodies: dict[str, object], first: str = "2030-01-16T00:00:00.000Z") -> list[str]:
    """The ids of those of *bodies* that are selected of February."""
    items = tuple(Item(str(n), "k", orjson.dumps(body)) for n, body in enumerate(bodies))
    found = selected(resource(name), Page(items), FEBRUARY, Time(first))
    return [item.id for item in found.items]


def created(at: str, **more: object) -> dict[str, object]:
    """What was created at *at*."""
    return {"created": {"at": at}, **more}


def test_messages_are_selected_by_when_they_were_created() -> None:
    """The begin of the period belongs to it, its end does not; one without a time is for decode to judge."""
    edges = ("2030-01-31T23:59:59.999Z", FEBRUARY.since, "2030-02-28T23:59:59.999Z", FEBRUARY.until)
    assert picked("messages", *map(created, edges), {}, created("never")) == ["1", "2", "4", "5"]


def test_conversations_are_selected_by_begin_or_end() -> None:
    """One that was closed within the period is of it, in whichever way the API says that it is closed."""
    before, within = "2030-01-20T00:00:00Z", "2030-02-02T00:00:00Z"
    dated = created(before, closed=within)
    flagged = created(before, closed=True, updated={"at": within})
    still_open = created(before, closed=False, updated={"at": within})
    assert picked("conversations", dated, flagged, still_open, created(within)) == ["0", "1", "3"]


def test_what_began_out_of_reach_is_counted_instead() -> None:
    """A conversation closed within the period also tells of its begin, which decode has forgotten."""
    body = orjson.dumps(created("2030-01-01T00:00:00Z", closed="2030-02-02T00:00:00Z"))
    page = Page((Item("1", "k", body),))
    found = selected(resource("conversations"), page, FEBRUARY, Time("2030-01-16T00:00:00.000Z"))
    assert (found.items, found.out_of_reach) == ((), 1)


@pytest.mark.parametrize("name", ["contacts", "tags", "users", "statistics"])
def test_state_is_fetched_as_it_is(name: str) -> None:
    """There is no history of it, so none is selected."""
    items = (Item("1", "k", orjson.dumps(created("2020-01-01T00:00:00Z"))),)
    assert selected(resource(name, "users"), Page(items), FEBRUARY, FEBRUARY.since).items == items


async def test_an_estimate_counts_what_the_api_tells() -> None:
    """Seven people in pages of three are three pages; a page of tags takes two calls."""
    async with opened() as tried:
        found = [await estimated(one, 3) for one in tried.world.found.values()]
    assert {f"{e.resource}": (e.items, e.calls) for e in found[3:]} == {
        "tags": (7, 6),
        "statistics": (1, 2),
        "accounts": (7, 1),
        "users": (7, 3),
        "contacts": (7, 3),
    }
    assert [(each.items, each.calls) for each in found[:3]] == [(7, 3)] * 3


async def test_an_estimate_looks_for_the_end_where_the_api_does_not_count() -> None:
    """Within a tenth, or a page, by a few calls instead of all pages."""
    number, asked_for = 9_430, []

    async def page(cursor: str) -> Page:
        offset = orjson.loads(cursor)["offset"] if cursor else 0
        asked_for.append(offset)
        items = tuple(Item(str(n), "k", b"{}") for n in range(offset, min(offset + 100, number)))
        following = orjson.dumps({"offset": offset + 100}).decode()
        return Page(items, following if offset + 100 < number else None)

    listed = Resource(tenant="t", account="a", product="sakari", name="messages", interval_s=1, page=page)
    found = await estimated(listed, 100)
    assert found.items == pytest.approx(number, rel=0.11)
    assert found.calls == pytest.approx(95, rel=0.12)
    assert len(asked_for) <= 15


def test_the_rate_is_a_share_of_the_limit() -> None:
    """A quarter of Sakari's ten a second, and of the Users API's hundred in ten."""
    assert (rate(Settings(), "sakari"), rate(Settings(), "users")) == (2.5, 2.5)
    half = Settings(backfill=BackfillSettings(share=0.5))
    assert rate(half, "sakari") == 5.0
