"""Adding up contacts: totals, score, opt state, first and last activity."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from pipeline.events import ContactEngagement
from pipeline.instants import Time, from_ms, to_ms
from pipeline.stage import Emit, Event, Outcome, Posted, Put, Stores
from pipeline.stages.engagement import score
from pipeline.stages.engagement.postings import Opt, Posting
from pipeline.stages.engagement.state import CONTACTS, TOTAL, Contact
from pipeline.stages.measures import Delta, plus

__all__ = ["add_up"]


class _Sum:
    """What is added to one contact."""

    def __init__(self) -> None:
        self.delta = Delta()
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
                self.delta.add(entry.delta, entry.sign)


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
    """*old* with all that is *added*; of opts on one side the latest holds, of equal times the opt-out."""
    opts: dict[str, Any] = {}
    for side, at, out in sorted(added.opts, key=lambda opt: opt[1:]):
        if (at, out) > (getattr(old, f"{side}_at"), getattr(old, side)):
            opts |= {f"{side}_at": at, side: out}
    total = score.from_text(old.sum) + added.sum
    published = plus(old.published, added.delta)
    contact = msgspec.structs.replace(old, **opts, published=published, sum=score.to_text(total))
    if not added.active_at:
        return contact
    return msgspec.structs.replace(contact, published=_active(contact, total, added.active_at))


def _active(contact: Contact, total: int, active_at: list[int]) -> ContactEngagement:
    """The totals after activities, with the score and the opt state that follow from the rest."""
    totals = contact.published
    first, last = from_ms(min(active_at)), from_ms(max(active_at))
    first = min(first, totals.first_activity_at or first)
    last = max(last, totals.last_activity_at or last)
    value = score.sum_at(total, to_ms(last))
    opted_out = contact.opted_out or contact.dnd
    return msgspec.structs.replace(
        totals,
        first_activity_at=first,
        last_activity_at=last,
        score=0.0 if opted_out else round(score.score(value), 6),
        score_sum=round(value, 6),
        score_at=last,
        opted_out=opted_out,
    )
