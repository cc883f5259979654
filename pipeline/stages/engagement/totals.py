"""Adding up contacts: totals, score, opt state, first and last activity."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from pipeline.events import ContactEngagement
from pipeline.instants import Time, from_ms, to_ms
from pipeline.stage import Emit, Event, Outcome, Posted, Put, Stores
from pipeline.stages.engagement import score
from pipeline.stages.engagement.postings import Opt, Posting
from pipeline.stages.engagement.state import CONTACTS, TOTAL, Contact
from pipeline.stages.measures import increased

__all__ = ["add_up"]


class _Sum:
    """What is added to one contact."""

    __slots__ = ("active_at", "amount", "cause", "opts", "sum")

    def __init__(self) -> None:
        self.amount = 0
        self.sum = 0
        self.active_at: list[int] = []
        self.opts: list[Opt] = []
        self.cause: Event[Any]

    def add(self, event: Event[Any], posting: Posting) -> None:
        self.cause = event
        self.sum += posting.sum
        if posting.active_at is not None:
            self.active_at.append(posting.active_at)
        if posting.opt is not None:
            self.opts.append(posting.opt)
        for entry in posting.entries:
            if entry.scopes & TOTAL:
                self.amount += entry.delta.amount if entry.sign > 0 else -entry.delta.amount


def add_up(read: Stores, postings: Iterable[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
    """The contacts that *postings* change, each once."""
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    for event, posting in postings:
        sums[event.key].add(event, posting)
    for key, added in sums.items():
        old = read.get(CONTACTS, key) or _fresh(added.cause)
        contact = _changed(old, added)
        if contact == old:
            continue
        emit: tuple[Emit, ...] = ()
        if contact.published != old.published:
            at = contact.published.last_activity_at or Time("")
            emit = (Emit("engagement.contacts", key, contact.published, occurred_at=at),)
        yield added.cause, Outcome(writes=(Put(CONTACTS, key, contact),), emit=emit)


def _fresh(event: Event[Any]) -> Contact:
    return Contact(published=ContactEngagement(tenant=event.value.tenant, contact_key=event.key))


def _changed(old: Contact, added: _Sum) -> Contact:
    """*old* with all that is *added*."""
    changes = _opted(old, added.opts) if added.opts else {}
    told = increased(old.published, added.amount)
    total = score.from_text(old.sum) + added.sum
    if added.sum:
        changes["sum"] = score.to_text(total)
    if added.active_at:
        out = changes.get("opted_out", old.opted_out) or changes.get("dnd", old.dnd)
        told |= _active(old.published, total, added.active_at, opted_out=out)
    return replace(old, published=replace(old.published, **told), **changes)


def _opted(old: Contact, opts: list[Opt]) -> dict[str, Any]:
    """What *opts* change: on each side the latest holds, of equal times the opt-out."""
    changes: dict[str, Any] = {}
    for opt in sorted(opts, key=lambda opt: (opt.at, opt.out)):
        if (opt.at, opt.out) > (getattr(old, f"{opt.side}_at"), getattr(old, opt.side)):
            changes |= {f"{opt.side}_at": opt.at, opt.side: opt.out}
    return changes


def _active(
    totals: ContactEngagement, total: int, active_at: list[int], *, opted_out: bool
) -> dict[str, Any]:
    """What activities change in *totals*: the score and the opt state follow from the rest."""
    first, last = from_ms(min(active_at)), from_ms(max(active_at))
    last = max(last, totals.last_activity_at or last)
    value = score.sum_at(total, to_ms(last))
    return {
        "first_activity_at": min(first, totals.first_activity_at or first),
        "last_activity_at": last,
        "score": 0.0 if opted_out else round(score.score(value), 6),
        "score_sum": round(value, 6),
        "score_at": last,
        "opted_out": opted_out,
    }
