"""Lists are walked to their end, and a page that is not as it should be is refused whole."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import pytest
from aiohttp import web

from pipeline.clients.pages import Page
from pipeline.errors import Throttled, Unavailable
from tests.unit.client_server import Handler, answering, sakari, users

Fetch = Callable[[str], Awaitable[Page]]


def listed(*ids: object) -> list[dict[str, Any]]:
    """Items with *ids*."""
    return [{"id": each} for each in ids]


def paged(pages: Sequence[Any], size: int = 2) -> Handler:
    """A server that answers the page that *offset* or *skip* names; the last one for ever after."""

    async def handler(request: web.Request) -> web.Response:
        number = int(request.query.get("offset") or request.query.get("skip") or 0) // size
        return web.json_response(pages[min(number, len(pages) - 1)])

    return handler


async def walked(fetch: Fetch) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await fetch(cursor)
        ids += [str(item.get("id") or item.get("_id")) for item in page.items]
        cursor = page.next_cursor
    return ids


async def test_a_short_page_ends_a_walk_where_nothing_else_is_told() -> None:
    """Without ``hasNext`` the first short page is the last; ``totalCount`` is not looked at."""
    pages = [{"data": listed("1", "2"), "pagination": {"totalCount": 99}}, {"data": listed("3")}]
    async with sakari(paged(pages)) as client:
        assert await walked(lambda cursor: client.contacts(cursor, limit=2)) == ["1", "2", "3"]


async def test_has_next_false_ends_a_walk_on_a_full_page() -> None:
    """``hasNext`` false is the end, however full the page."""
    pages = [{"data": listed("1", "2"), "pagination": {"hasNext": False}}]
    async with sakari(paged(pages)) as client:
        assert await walked(lambda cursor: client.messages(cursor, limit=2)) == ["1", "2"]


async def test_an_empty_page_in_the_middle_does_not_end_a_walk() -> None:
    """An empty page that says there are more is passed over."""
    more = {"hasNext": True}
    pages = [
        {"data": listed("1", "2"), "pagination": more},
        {"data": [], "pagination": more},
        {"data": listed("5"), "pagination": {"hasNext": False}},
    ]
    async with sakari(paged(pages)) as client:
        assert await walked(lambda cursor: client.conversations(cursor, limit=2)) == ["1", "2", "5"]


async def test_a_server_that_allows_smaller_pages_is_walked_by_its_own_size() -> None:
    """Where the answer's ``limit`` is below the one asked for, a page of that size is a full one."""
    pages = [{"data": listed("1", "2"), "pagination": {"limit": 2}}, {"data": [], "pagination": {"limit": 2}}]
    async with sakari(paged(pages)) as client:
        assert await walked(lambda cursor: client.contacts(cursor, limit=100)) == ["1", "2"]


async def test_a_page_that_repeats_itself_is_found_out() -> None:
    """A server that ignores the offset does not keep a scan going for ever."""
    async with sakari(answering({"data": listed("1", "2")})) as client:
        with pytest.raises(Unavailable, match=r"contacts\.fetchAll: page 2 repeats"):
            await walked(lambda cursor: client.contacts(cursor, limit=2))


async def test_a_walk_without_end_is_given_up() -> None:
    """Ever new items, or ever empty pages with more to come, end at the bound."""
    async with sakari(answering({"data": [], "pagination": {"hasNext": True}}), max_pages=5) as client:
        with pytest.raises(Unavailable, match="more than 5 pages"):
            await walked(client.contacts)


async def test_a_cursor_of_nobodys_is_refused() -> None:
    """A cursor that cannot be read is an error, not a new beginning."""
    async with sakari(answering({"data": []})) as client:
        with pytest.raises(Unavailable, match="cursor"):
            await client.contacts("nonsense")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "contacts.fetchAll is a list, expected an object"),
        (None, "contacts.fetchAll is null, expected an object"),
        ({}, "contacts.fetchAll: data is missing"),
        ({"data": {}}, "contacts.fetchAll: data is an object, expected a list"),
        ({"data": [1]}, "contacts.fetchAll: data[0] is a number, expected an object"),
        ({"data": [{"id": "1"}, {}]}, "contacts.fetchAll: data[1].id is missing"),
        ({"data": [{"id": ""}]}, "contacts.fetchAll: data[0].id is missing"),
        ({"data": [{"id": ["x"]}]}, "contacts.fetchAll: data[0].id is a list, expected a text"),
        ({"data": [{"id": True}]}, "contacts.fetchAll: data[0].id is a boolean, expected a text"),
    ],
)
async def test_a_page_of_a_wrong_shape_is_refused_whole(body: object, told: str) -> None:
    """No item is lost without notice: the error names the operation and the field."""
    async with sakari(answering(body)) as client:
        with pytest.raises(Unavailable) as caught:
            await client.contacts()
    assert str(caught.value) == told


async def test_success_false_is_no_page() -> None:
    """Sakari's own failure inside a 200 is one, and MSG-028 is a throttle."""
    async with sakari(answering({"success": False, "error": {"code": "GEN-001"}})) as client:
        with pytest.raises(Unavailable, match="GEN-001"):
            await client.contacts()
    async with sakari(answering({"success": False, "error": {"code": "MSG-028"}})) as client:
        with pytest.raises(Throttled):
            await client.contacts()


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_gone_is_none(status: int) -> None:
    """A tombstone rests on this answer, so only 404 and 410 give it."""
    async with sakari(answering({}, status)) as client:
        assert await client.contact("c1") is None
    async with users(answering({}, status)) as client_users:
        assert await client_users.contact("c1") is None


async def test_tags_are_walked_by_skip_and_their_count() -> None:
    """An empty page of tags does not end the walk while the count says that there are more."""

    def page(*ids: str) -> dict[str, Any]:
        return {"results": {"tags": [{"_id": each} for each in ids], "count": 5}}

    async with users(paged([page("1", "2"), page(), page("5")])) as client:
        assert await walked(lambda cursor: client.tags(cursor, limit=2)) == ["1", "2", "5"]


async def test_contacts_are_walked_by_the_apis_own_cursor() -> None:
    """``searchAfter`` of the last contact continues the search, and is no part of the contact."""
    asked: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        asked.append(body.get("searchAfter"))
        found = [{"id": str(len(asked) * 10 + n), "searchAfter": [len(asked), n]} for n in range(2)]
        return web.json_response({"contacts": found if len(asked) < 3 else found[:1]})

    async with users(handler) as client:
        ids = await walked(lambda cursor: client.contacts(cursor, limit=2))
        page = await client.contacts()
    assert ids == ["10", "11", "20", "21", "30"]
    assert asked[:3] == [None, [1, 1], [2, 1]]
    assert "searchAfter" not in page.items[0]


async def test_a_full_page_of_contacts_needs_a_cursor() -> None:
    """Where the cursor is missing the walk fails instead of ending too soon."""
    async with users(answering({"contacts": listed("1", "2")})) as client:
        with pytest.raises(Unavailable, match=r"contacts\.search.*searchAfter is missing"):
            await client.contacts(limit=2)
