"""
Pages of what an API lists, checked item by item, and the cursors between them.

A cursor is text that holds all that is known of the walk, so that a poller can keep it over a restart:
where the next page begins, how many pages there were, and what the last one held. An API that answers
the same page for ever is thus found out, and a walk ends at *max_pages* at the latest.
"""

import hashlib
from typing import Any, Final, final

import msgspec

from pipeline.errors import Unavailable

__all__ = ["MAX_PAGES", "Page", "Walk", "counted", "field", "items_of", "object_of"]

#: A walk of more pages is endless.
MAX_PAGES: Final = 10_000


@final
class Page(msgspec.Struct, frozen=True):
    """
    Items in the API's order; *next_cursor* is None after the last page.

    *total* is how many there are, where the API says so: good for an estimate, never to be relied on.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None
    total: int | None = None


@final
class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """How far a walk over pages has come; its text form is the cursor."""

    offset: int = 0
    after: Any = None  #: the API's own cursor, where it has one
    pages: int = 0
    digest: str = ""  #: of the ids on the page before

    @classmethod
    def at(cls, cursor: str, operation: str) -> "Walk":
        """
        The walk that *cursor* holds; an empty one is its beginning.

        Raises:
            Unavailable: it is no cursor of ours.
        """
        if not cursor:
            return cls()
        try:
            return msgspec.json.decode(cursor, type=cls)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{operation}: the cursor cannot be read: {error}") from None

    def onward(self, ids: list[str], *, offset: int = 0, after: Any = None) -> "Walk":
        """The walk after a page with *ids*, to be continued at *offset* or *after*."""
        digest = hashlib.sha256("\0".join(ids).encode()).hexdigest()[:16]
        return Walk(offset=offset, after=after, pages=self.pages + 1, digest=digest if ids else "")

    def checked(self, before: "Walk", ids: list[str], operation: str, max_pages: int) -> str:
        """
        The cursor of this walk, which came *before* by a page of *ids*.

        Raises:
            Unavailable: the page repeats the one before, or there were too many.
        """
        # A single item may well be listed twice while others are inserted before it.
        if self.digest and self.digest == before.digest and len(ids) > 1:
            raise Unavailable(f"{operation}: page {self.pages} repeats the one before it")
        if self.pages >= max_pages:
            raise Unavailable(f"{operation}: more than {max_pages} pages; the listing does not end")
        return msgspec.json.encode(self).decode()


def object_of(value: Any, where: str) -> dict[str, Any]:
    """
    *value*, which must be a JSON object.

    Raises:
        Unavailable: it is none; names *where*.
    """
    if not isinstance(value, dict):
        raise Unavailable(f"{where} is {_kind(value)}, expected an object")
    return value


def field(value: Any, path: str, operation: str) -> Any:
    """
    What stands at the dotted *path* of *value*.

    Raises:
        Unavailable: it, or something on the way, is missing.
    """
    walked = operation
    for name in path.split("."):
        value = object_of(value, walked)
        walked = f"{walked}: {name}" if walked == operation else f"{walked}.{name}"
        if name not in value:
            raise Unavailable(f"{walked} is missing")
        value = value[name]
    return value


def counted(body: Any, path: str) -> int | None:
    """The count at the dotted *path* of *body*, None where there is none."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body if isinstance(body, int) and not isinstance(body, bool) else None


def items_of(value: Any, path: str, operation: str, id_field: str = "id") -> list[dict[str, Any]]:
    """
    The list at *path* of *value*, each item an object with an id that is a text (or a number).

    Raises:
        Unavailable: any of it is not so. The whole page is refused: a scan that loses an item without
            notice would later take it for removed.
    """
    items = field(value, path, operation)
    if not isinstance(items, list):
        raise Unavailable(f"{operation}: {path} is {_kind(items)}, expected a list")
    for index, item in enumerate(items):
        where = f"{operation}: {path}[{index}]"
        given = object_of(item, where).get(id_field)
        if given is None or given == "":
            raise Unavailable(f"{where}.{id_field} is missing")
        if not isinstance(given, str | int) or isinstance(given, bool):
            raise Unavailable(f"{where}.{id_field} is {_kind(given)}, expected a text")
    return items


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"
