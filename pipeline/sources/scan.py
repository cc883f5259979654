"""
What a page of a scan, and a whole scan, amount to: pure functions over the poller's state.

Only changes are published: an item whose content hash is the stored one is passed over. A removal
needs absence in two consecutive complete scans, and then a look at the item by its id; a scan that
would remove more than a fifth (and more than ten) removes nothing and is suspicious.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final
from urllib.parse import quote

import msgspec
import orjson

from pipeline.codec import MAX_RECORD_BYTES, new_traceparent
from pipeline.errors import Unavailable
from pipeline.events import PollState
from pipeline.instants import Time, from_ms
from pipeline.stage import Delete, Emit, Outcome, Put, Store, Stores, Write

__all__ = [
    "ITEMS",
    "LISTED",
    "MAX_ITEM_BYTES",
    "SCHEDULE",
    "Absent",
    "Item",
    "Known",
    "Page",
    "Resource",
    "absent",
    "item_of",
    "page_outcome",
    "readable",
    "received",
    "removal_outcome",
    "size_of",
    "suspicious",
]

#: A scan that would remove more than this share, and more than this number, is not believed.
SUSPICIOUS_SHARE = 0.20
SUSPICIOUS_NUMBER = 10

#: A larger item cannot become a record with its headers; it is passed over, and said so at each scan.
MAX_ITEM_BYTES = MAX_RECORD_BYTES - 4096

#: The cursor of a scan that has read its last page, and still has to judge what it missed.
LISTED = "!listed"

#: Complete scans in a row that must miss an item before it is looked for by its id; where the API has
#: no way to do so, one more scan must miss it.
ABSENCES = 2


@final
class Item(msgspec.Struct, frozen=True):
    """
    One polled item: its id, its native key and its JSON.

    Not *published* means only counted. *compared* is what tells a change, where not the body does.
    """

    id: str
    key: str
    body: bytes
    published: bool = True
    compared: bytes = b""


@final
class Page(msgspec.Struct, frozen=True):
    """Part of a scan; *next_cursor* is None at the end; *total* is how many items the API says there are."""

    items: tuple[Item, ...]
    next_cursor: str | None = None
    total: int | None = None


@final
class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one poller polls: one resource of one account.

    *page* reads the page at a cursor ("" is the first), *exists* looks an item up by its id (None where
    the API cannot). Both raise `UpstreamError`. *removable* says whether absence means removal.
    *is_left_out* says of a native key whether its person was erased: not even their removal is published.
    """

    tenant: str
    account: str
    product: str  #: ``sakari`` or ``users``
    name: str  #: as in the header ``resource``
    interval_s: float
    page: Callable[[str], Awaitable[Page]]
    exists: Callable[[str], Awaitable[bool]] | None = None
    removable: bool = True
    is_left_out: Callable[[str], bool] = lambda _: False

    @property
    def key(self) -> str:
        """Its key in the schedule."""
        return f"{self.tenant}|{self.account}|{self.product}.{self.name}"


@final
class Known(msgspec.Struct, frozen=True):
    """What is remembered of an item: its hash, how many scans missed it, and what it was."""

    hash: bytes
    absences: int = 0
    key: str = ""
    body: bytes = b""


@final
class Absent(msgspec.Struct, frozen=True):
    """An item that a complete scan did not find."""

    id: str
    known: Known


SCHEDULE: Store[PollState] = Store("schedule", PollState, changelog="poll.schedule")
ITEMS: Store[Known] = Store("items", Known)


def item_of(identifier: str, key: str, content: dict[str, Any], *, published: bool = True) -> Item:
    """The item that *content* is; its JSON has sorted keys, so that equal content is equal bytes."""
    return Item(identifier, key, orjson.dumps(content, option=orjson.OPT_SORT_KEYS), published)


@contextmanager
def readable(resource: Resource) -> Iterator[None]:
    """An answer of a shape that nobody foresaw is this resource's failure, not that of all."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unavailable(f"{resource.name}: {type(error).__name__} in an answer") from error


def size_of(item: Item) -> int:
    """What *item* takes as a record, in bytes; its key stands in a record three times at most."""
    return len(item.body) + 3 * len(item.key.encode())


def page_outcome(read: Stores, resource: Resource, state: PollState, page: Page, now_ms: int) -> Outcome:
    """Publish what changed on *page*, remember it, store *state*; of an id that stands twice, the last."""
    writes: list[Write] = [Put(SCHEDULE, resource.key, state)]
    emits: list[Emit] = []
    for item in {item.id: item for item in page.items}.values():
        place = f"{resource.key}|{item.id}"
        known = read.get(ITEMS, place)
        digest = _digest(item.compared or item.body)
        if not item.published:
            writes += [Delete(ITEMS, place)] if known is not None else []
        elif known is None or known.hash != digest:
            kept = item.body if resource.removable else b""
            writes.append(Put(ITEMS, place, Known(digest, 0, item.key, kept)))
            emits.append(_emit(resource, state, item, now_ms))
        elif known.absences:
            writes.append(Put(ITEMS, place, msgspec.structs.replace(known, absences=0)))
    return Outcome(tuple(writes), tuple(emits))


def absent(read: Stores, resource: Resource, seen: set[str]) -> Iterator[Absent | None]:
    """Each remembered item that is not among *seen*; None after every chunk, to let others work."""
    start, end = f"{resource.key}|", f"{resource.key}}}"
    while True:
        last = ""
        for place, known in read.scan(ITEMS, start, end):
            last = place
            identifier = place[len(resource.key) + 1 :]
            if identifier not in seen:
                yield Absent(identifier, known)
        if not last:
            return
        yield None
        start = last + "\0"


def suspicious(removed: int, seen: int) -> bool:
    """Whether a scan that saw *seen* items and would remove *removed* is not to be believed."""
    return removed > SUSPICIOUS_NUMBER and removed > SUSPICIOUS_SHARE * (removed + seen)


def removal_outcome(
    resource: Resource, state: PollState, missed: Iterable[Absent], gone: Iterable[Absent], now_ms: int
) -> Outcome:
    """Count the absence of *missed*; publish each of *gone* as removed, as it was last known."""
    writes: list[Write] = [
        Put(
            ITEMS,
            f"{resource.key}|{one.id}",
            msgspec.structs.replace(one.known, absences=one.known.absences + 1),
        )
        for one in missed
    ]
    emits: list[Emit] = []
    for one in gone:
        writes.append(Delete(ITEMS, f"{resource.key}|{one.id}"))
        if resource.removable and not resource.is_left_out(one.known.key):
            item = Item(one.id, one.known.key, one.known.body)
            emits.append(_emit(resource, state, item, now_ms, change="removed"))
    return Outcome(tuple(writes), tuple(emits))


def _emit(resource: Resource, state: PollState, item: Item, now_ms: int, *, change: str = "") -> Emit:
    started = state.scan_started_at or Time("")
    return received(resource, item, started, now_ms, told_by=str(state.scan), change=change)


def received(
    resource: Resource,
    item: Item,
    started_at: Time,
    now_ms: int,
    *,
    told_by: str,
    source: str = "poll",
    change: str = "",
) -> Emit:
    """
    The record that *item* becomes: true from *started_at* on, received at *now_ms*.

    Its id follows from the item, from *told_by* (which scan, or which job) and from *change*.
    """
    text = f"{resource.product}|{resource.account}|{resource.name}|{item.id}|{told_by}|{change}"
    ce_id = hashlib.sha256(text.encode()).hexdigest()
    headers = {
        "ce_source": f"/{source}/{resource.product}/{resource.tenant}/{quote(resource.account, safe='')}",
        "source": source,
        "product": resource.product,
        "resource": resource.name,
        "tenant": resource.tenant,
        "account": resource.account,
        "verified": "true",
        "received_at": from_ms(now_ms),
        "scan_started_at": started_at,
        "traceparent": new_traceparent(text.encode() + str(now_ms).encode()),
    }
    if change:
        headers["change"] = change
    return Emit(
        "sources.received", item.key, item.body, ce_id, from_ms(now_ms), item.key, tuple(headers.items())
    )


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:16]
