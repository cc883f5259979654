"""
Resources without the people who were erased.

Who that is, is read anew whenever a scan or a walk begins. What a poller remembers of such an item is
deleted when the item turns up again, and the item is not published, as it was or as removed.
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pipeline.sources.scan import Item, Page, Resource

__all__ = ["fetched", "polled"]


class _LeftOut:
    """The native keys of the erased, as last read."""

    def __init__(self, load: Callable[[], Awaitable[frozenset[str]]]) -> None:
        self._load = load
        self._keys: frozenset[str] | None = None

    async def refresh(self, cursor: str) -> None:
        if self._keys is None or not cursor:
            self._keys = await self._load()

    def __call__(self, key: str) -> bool:
        return self._keys is not None and key in self._keys


def polled(resource: Resource, load: Callable[[], Awaitable[frozenset[str]]]) -> Resource:
    """*resource* for a poller: nothing is published of items under the native keys that *load* tells."""
    left_out = _LeftOut(load)

    def shown(item: Item) -> Item:
        return replace(item, published=False) if left_out(item.key) else item

    async def page(cursor: str) -> Page:
        await left_out.refresh(cursor)
        found = await resource.page(cursor)
        return replace(found, items=tuple(map(shown, found.items)))

    return replace(resource, page=page, is_left_out=left_out)


def fetched(resource: Resource, load: Callable[[], Awaitable[frozenset[str]]]) -> Resource:
    """*resource* for a backfill: without items under one of the native keys that *load* tells."""
    left_out = _LeftOut(load)

    async def page(cursor: str) -> Page:
        await left_out.refresh(cursor)
        found = await resource.page(cursor)
        return replace(found, items=tuple(item for item in found.items if not left_out(item.key)))

    return replace(resource, page=page)
