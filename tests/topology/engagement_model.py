"""
Histories for the laws of the engagement stage, and a model of what they must come to.

A history is a list of deliveries: facts about few contacts, conversations and messages, at times
that collide, over a day of 23 hours and its neighbours; some come twice, late or as backfill. What
must stand in the end is told by a model that looks at the whole history at once and never corrects.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import strategies as st

from pipeline.events import (
    Activity,
    ContactOptedIn,
    ContactOptedOut,
    ContactTag,
    ConversationClosed,
    ConversationStarted,
    EnrichedContact,
    Measures,
    Message,
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatusChanged,
    SakariFact,
)
from pipeline.histogram import BOUNDS
from pipeline.instants import Time, from_ms, to_ms

ZONE = ZoneInfo("Europe/Berlin")
ZONES = {"acme": ZONE}  # beta has none: UTC
HOUR = 3_600_000
GRACE_S, REPLY_S = 24 * 3600, 72 * 3600
START = to_ms(Time("2030-03-30T20:30:00.000Z"))  # the night before clocks go forward in Berlin
MINUTE = 60_000

CONTACTS = ("acme:m:1", "acme:s:x|y", "beta:m:1")
TAGS = (
    ContactTag(name="VIP", folded="vip", systems=("users",), tag_id="t/1"),
    ContactTag(name="A b", folded="a b", systems=("sakari",)),
    ContactTag(name="Gold", folded="gold", systems=("sakari",)),
)
MAX_TAGS = 2


class Delivery(NamedTuple):
    """One fact as it arrives."""

    activity: Activity
    received_at: int
    backfill: bool


# -- histories -----------------------------------------------------------------------------------


def _message(number: int, *, outgoing: bool) -> Message:
    """Message *number*: everything about it follows from the number, as it does from a real id."""
    at = START + (number % 5) * 24 * HOUR + (number // 5) * MINUTE
    return Message(
        id=f"{'out' if outgoing else 'in'} {number}",
        conversation_id=("v1", "v1", "v1", "v1", "v2", None)[number % 6],
        outgoing=outgoing,
        job_id=f"j {number % 2}" if number % 3 else None,
        template_id="t1" if number % 4 == 0 else None,
        number="f" * 32 if number % 2 else None,
        created_at=from_ms(at),
        updated_at=from_ms(at),
    )


def _sent(number: int, _: int) -> SakariFact:
    message = _message(number, outgoing=True)
    return MessageSent(tenant="", account_id="a1", occurred_at=message.created_at, message=message)


def _received(number: int, _: int) -> SakariFact:
    message = _message(number, outgoing=False)
    return MessageReceived(tenant="", account_id="a1", occurred_at=message.created_at, message=message)


def _status(number: int, choice: int) -> SakariFact:
    message = _message(number, outgoing=True)
    status = ("delivered", "undelivered", "queued", "error")[choice % 4]
    at = from_ms(to_ms(message.created_at) + choice % 3)
    return MessageStatusChanged(tenant="", account_id="a1", occurred_at=at, message=message, status=status)


def _priced(number: int, choice: int) -> SakariFact:
    message = _message(number, outgoing=True)
    at = from_ms(to_ms(message.created_at) + choice % 2)
    cost = ("0.0075", "0.01", "2", "1.50")[choice % 4]
    return MessagePriced(
        tenant="", account_id="a1", occurred_at=at, message=message, segments=choice, price=cost
    )


def _happening(number: int, choice: int) -> SakariFact:
    at = _message(number, outgoing=True).created_at
    match choice % 4:
        case 0:
            return ContactOptedOut(tenant="", account_id="a1", occurred_at=at, contact_id="c")
        case 1:
            return ContactOptedIn(tenant="", account_id="a1", occurred_at=at, contact_id="c")
        case 2:
            return ConversationStarted(tenant="", account_id="a1", occurred_at=at, conversation_id="v1")
        case _:
            return ConversationClosed(
                tenant="", account_id="a1", occurred_at=at, conversation_id="v1", number="e" * 32
            )


def _delivery(
    contact_key: str, fact: SakariFact, tags: Sequence[ContactTag], delay_h: int, backfill: bool
) -> Delivery:
    tenant = contact_key[:4]
    fact = msgspec.structs.replace(fact, tenant=tenant)
    name = f"{contact_key}/{hash_of(fact)}"
    if not hasattr(fact, "message"):  # what comes again is the same record, and no message fixes its tags
        tags = TAGS[len(name) % 3 :]
    contact = EnrichedContact(tenant=tenant, contact_key=contact_key, tags=tuple(tags))
    activity = Activity(tenant=tenant, contact_key=contact_key, fact_id=name, event=fact, contact=contact)
    return Delivery(activity, to_ms(fact.occurred_at) + delay_h * HOUR + 1000, backfill)


def hash_of(fact: SakariFact) -> str:
    """A text that is the same for the same fact."""
    return msgspec.json.encode(fact).hex()


NUMBERS = st.integers(0, 11)
FACTS: st.SearchStrategy[SakariFact] = st.one_of(
    [
        st.builds(make, NUMBERS, st.integers(0, 11))
        for make in (_sent, _sent, _received, _received, _status, _priced, _happening)
    ]
)
DELIVERIES = st.builds(
    _delivery,
    st.sampled_from((*CONTACTS[:1] * 4, *CONTACTS)),
    FACTS,
    st.lists(st.sampled_from(TAGS), unique=True, max_size=3),
    st.sampled_from([0, 0, 0, 20, 30, 60, 100]),
    st.sampled_from([False, False, False, True]),
)
#: Short ones are easily understood; in long ones facts meet and correct each other.
HISTORIES = st.lists(DELIVERIES, max_size=4) | st.lists(DELIVERIES, min_size=15, max_size=40)
SPLITS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def uniform(history: Iterable[Delivery]) -> list[Delivery]:
    """*history* with the tags of each contact always the same, so that no order changes dimensions."""
    fixed = {key: TAGS[index : index + 2] for index, key in enumerate(CONTACTS)}
    return [
        delivery._replace(
            activity=msgspec.structs.replace(
                delivery.activity,
                contact=msgspec.structs.replace(
                    delivery.activity.contact, tags=fixed[delivery.activity.contact_key]
                ),
            )
        )
        for delivery in history
        if delivery.activity.contact is not None
    ]


# -- the model -----------------------------------------------------------------------------------


class Window(NamedTuple):
    """A window of one width."""

    width: str
    start: datetime
    end: datetime


def windows_of(at: int, tenant: str, width: str) -> Window:
    """The window that holds *at*, by the calendar."""
    stamp = datetime.fromtimestamp(at / 1000, UTC)
    if width == "1h":
        start = stamp.replace(minute=0, second=0, microsecond=0)
        return Window(width, start, start + timedelta(hours=1))
    zone = ZONES.get(tenant, ZoneInfo("UTC"))
    day = stamp.astimezone(zone).date()
    first, last = (datetime.combine(d, time(), zone).astimezone(UTC) for d in (day, day + timedelta(days=1)))
    return Window(width, first, last)


def on_time(delivery: Delivery, at: int, width: str) -> bool:
    """Whether *delivery* may count in the window of *width* that holds *at*."""
    if width == "total" or delivery.backfill:
        return True
    end = windows_of(at, delivery.activity.tenant, width).end
    return delivery.received_at - end.timestamp() * 1000 <= GRACE_S * 1000


class Model:
    """One width of one contact, or with ``total`` the contact's totals, from its whole history."""

    def __init__(self, history: Sequence[Delivery], width: str) -> None:
        self.width = width
        self.history = history
        self.counts: dict[tuple[str, Window | None], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
        self.dimensions: dict[str, list[str]] = {}
        self.weights: list[tuple[float, int]] = []
        for delivery in history:
            self.dimensions.setdefault(self.subject(delivery), dimensions_of(delivery))
        self.sent()
        self.told()
        self.replies()
        self.happenings()

    @staticmethod
    def subject(delivery: Delivery) -> str:
        """What dimensions are fixed for: a message, else the fact itself."""
        message = getattr(delivery.activity.event, "message", None)
        return message.id if message else delivery.activity.fact_id

    def facts(self, *kinds: type) -> Iterator[tuple[Delivery, Any, int]]:
        """Each delivery on time of a fact of *kinds*, and when it is booked."""
        for delivery in self.history:
            fact = delivery.activity.event
            if isinstance(fact, kinds):
                message = getattr(fact, "message", None)
                at = to_ms(message.created_at if message else fact.occurred_at)
                if on_time(delivery, at, self.width):
                    yield delivery, fact, at

    def count(self, subject: str, at: int, tenant: str, **changes: Any) -> None:
        """Count *changes* in all windows of *subject* at *at*."""
        window = None if self.width == "total" else windows_of(at, tenant, self.width)
        for dimension in self.dimensions[subject] if window else ["all"]:
            for name, change in changes.items():
                self.counts[dimension, window][name] += change

    def once(self, *kinds: type) -> dict[str, tuple[Delivery, Any, int]]:
        """The facts of *kinds*, each once, by subject."""
        return {self.subject(delivery): (delivery, fact, at) for delivery, fact, at in self.facts(*kinds)}

    def sent(self) -> None:
        """Sent and received messages, and the distinct contacts behind them."""
        for kind, measure, distinct in (
            (MessageSent, "sent", "contacts_messaged"),
            (MessageReceived, "received", "contacts_engaged"),
        ):
            for subject, (delivery, _, at) in self.once(kind).items():
                self.count(subject, at, delivery.activity.tenant, **{measure: 1})
            for counts in self.counts.values():
                counts[distinct] = int(counts[measure] > 0)

    def told(self) -> None:
        """The last terminal status and the last price of each message."""
        statuses: dict[tuple[str, int, str], list[tuple[str, bool]]] = defaultdict(list)
        prices: dict[tuple[str, int, str], list[tuple[str, Decimal, int]]] = defaultdict(list)
        for delivery, fact, at in self.facts(MessageStatusChanged, MessagePriced):
            place = (self.subject(delivery), at, delivery.activity.tenant)
            if isinstance(fact, MessagePriced):
                prices[place].append((fact.occurred_at, Decimal(fact.price), fact.segments))
            elif fact.status != "queued":
                statuses[place].append((fact.occurred_at, fact.status == "delivered"))
        for place, ends in statuses.items():
            last, delivered = max(ends)
            changes: dict[str, Any] = {"delivered" if delivered else "failed": 1}
            self.count(*place, **changes)
            self.weights += [(0.1, to_ms(Time(last)))] * delivered
        for place, costs in prices.items():
            self.count(*place, cost=max(costs)[1], segments=max(costs)[2])

    def replies(self) -> None:
        """Each inbound message belongs to the latest outbound one before it, of its conversation."""
        outbound = self.once(MessageSent)
        for heard in inbound(self.history):
            message = heard.activity.event.message
            at = to_ms(message.created_at)
            before = [
                (sent_at, subject)
                for subject, (_, fact, sent_at) in outbound.items()
                if fact.message.conversation_id == message.conversation_id and sent_at <= at
            ]
            sent_at, subject = max(before, default=(0, ""))
            replied = at - sent_at <= REPLY_S * 1000 and on_time(heard, sent_at, self.width)
            self.weights.append((1.0 if replied else 0.7, at))
            if replied:
                seconds = (at - sent_at) // 1000
                bucket = next(str(number) for number, bound in enumerate(BOUNDS) if bound >= seconds)
                self.count(subject, sent_at, heard.activity.tenant, replies=1, **{f"bucket {bucket}": 1})
        for counts in self.counts.values():
            counts["repliers"] = int(counts["replies"] > 0)

    def score_sum(self, at: int) -> float:
        """S at *at*, by the formula, in floats."""
        return sum(weight * 2 ** ((told_at - at) / (14 * 24 * HOUR)) for weight, told_at in self.weights)

    def opted_out(self) -> bool:
        """Whether the last opt fact is an opt-out."""
        opts = [
            (at, isinstance(fact, ContactOptedOut))
            for _, fact, at in self.facts(ContactOptedOut, ContactOptedIn)
        ]
        return max(opts, default=(0, False))[1]

    def happenings(self) -> None:
        """Opt-outs, opt-ins and conversations."""
        for kind, measure in (
            (ContactOptedOut, "opt_outs"),
            (ContactOptedIn, "opt_ins"),
            (ConversationStarted, "conversations_started"),
            (ConversationClosed, "conversations_closed"),
        ):
            for subject, (delivery, _, at) in self.once(kind).items():
                self.count(subject, at, delivery.activity.tenant, **{measure: 1})


def inbound(history: Iterable[Delivery]) -> list[Any]:
    """Each inbound message once, as it was received first, or as backfill."""
    found: dict[str, Delivery] = {}
    for delivery in history:
        if isinstance(delivery.activity.event, MessageReceived):
            subject = Model.subject(delivery)
            known = found.get(subject, delivery)
            found[subject] = min(known, delivery, key=lambda d: 0 if d.backfill else d.received_at)
    return list(found.values())


def dimensions_of(delivery: Delivery) -> list[str]:
    """The dimensions that *delivery* would fix."""
    fact: Any = delivery.activity.event
    contact = delivery.activity.contact
    tags = [
        f"tag:id:{quote(tag.tag_id, safe='')}" if tag.tag_id else f"tag:name:{quote(tag.folded)}"
        for tag in (contact.tags if contact else ())[:MAX_TAGS]
    ]
    own = getattr(fact, "message", None)
    told = (
        {"job": own.job_id, "template": own.template_id, "number": own.number}
        if own
        else {"number": getattr(fact, "number", None)}
    )
    return ["all", *tags, *(f"{kind}:{quote(value)}" for kind, value in told.items() if value)]


def measures_of(counts: dict[str, Any]) -> Measures:
    """The model's *counts* as `Measures`."""
    buckets = {name[7:]: count for name, count in counts.items() if name.startswith("bucket ")}
    plain = {name: count for name, count in counts.items() if not name.startswith(("bucket", "cost"))}
    cost = f"{counts.get('cost', Decimal(0)):f}"
    cost = cost.rstrip("0").rstrip(".") if "." in cost else cost
    return Measures(**plain, cost=cost, reply_seconds=buckets)


def expected(history: Sequence[Delivery], *widths: str) -> dict[str, Measures]:
    """
    The measures that *history* must come to, without those that are all zero.

    By window key for the widths ``1h`` and ``1d``, by contact key for ``total``.
    """
    sums: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for contact_key in CONTACTS:
        own = [delivery for delivery in history if delivery.activity.contact_key == contact_key]
        for width in widths:
            for (dimension, window), counts in Model(own, width).counts.items():
                start = window and f"{window.start:%Y-%m-%dT%H:%M:%S}.000Z"
                key = f"{contact_key[:4]}|{dimension}|{width}|{start}" if window else contact_key
                for name, count in counts.items():
                    sums[key][name] += count
    measures = {key: measures_of(counts) for key, counts in sums.items()}
    return {key: value for key, value in measures.items() if value != Measures()}
