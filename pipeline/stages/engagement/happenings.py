"""How facts that are no messages are counted: opt-outs and opt-ins, conversations, "do not disturb"."""

from pipeline.events import (
    ContactOptedIn,
    ContactOptedOut,
    ConversationClosed,
    ConversationStarted,
    UsersContactDndUpdated,
)
from pipeline.stages.engagement import dimensions
from pipeline.stages.engagement.ledger import Ledger
from pipeline.stages.engagement.postings import Delta
from pipeline.stages.measures import amount

__all__ = ["count_conversation", "count_dnd", "count_opt"]

OPTED_OUT = Delta(amount(opt_outs=1))
OPTED_IN = Delta(amount(opt_ins=1))
STARTED = Delta(amount(conversations_started=1))
CLOSED = Delta(amount(conversations_closed=1))


def count_opt(ledger: Ledger, fact: ContactOptedOut | ContactOptedIn) -> None:
    """Count an opt-out or opt-in once; the one that occurred last is the contact's state on Sakari."""
    out = isinstance(fact, ContactOptedOut)
    ledger.opt("opted_out", out=out)
    _count(ledger, OPTED_OUT if out else OPTED_IN, None)


def count_dnd(ledger: Ledger, fact: UsersContactDndUpdated) -> None:
    """Let "do not disturb" change the contact's state; it feeds no measure."""
    ledger.opt("dnd", out=fact.dnd)
    ledger.happened()


def count_conversation(ledger: Ledger, fact: ConversationStarted | ConversationClosed) -> None:
    """Count the beginning or the end of a conversation once."""
    _count(ledger, STARTED if isinstance(fact, ConversationStarted) else CLOSED, fact.number)


def _count(ledger: Ledger, delta: Delta, number: str | None) -> None:
    ledger.happened()
    dims = dimensions.of_activity(ledger.activity, number, ledger.terms.max_tags)
    place = ledger.place(ledger.at, dims)
    fresh = ledger.unseen(ledger.admitted(place))
    if fresh:
        ledger.post(place, fresh, delta)
