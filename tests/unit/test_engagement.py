"""What the engagement stage makes of single facts."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipeline.events import (
    Activity,
    ContactEngagement,
    ContactOptedIn,
    ContactOptedOut,
    ContactTag,
    EnrichedContact,
    Fact,
    ListOptedOut,
    Measures,
    Message,
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatusChanged,
    Tick,
    UnknownFact,
    UsersContactDndUpdated,
    UsersMessageReceived,
)
from pipeline.instants import Time, from_ms
from pipeline.stages import engagement
from pipeline.testing import EPOCH_MS, Driver

HOUR = 3_600_000
DAY = 24 * HOUR
KEY = "acme:m:1"
SAKARI: Any = {"tenant": "acme", "account_id": "a1"}


@pytest.fixture
def driver() -> Driver:
    """The stage on one partition, with the grace and reply window of the design."""
    return Driver(
        [
            engagement.stage(
                zones={"acme": ZoneInfo("Europe/Berlin")},
                grace_s=7 * 86_400,
                reply_window_s=72 * 3600,
                max_tags=2,
                seen_days=45,
            )
        ],
        partitions=1,
    )


def message(which: int, at: int, /, **fields: Any) -> Message:
    """Message *which*, created *at* ms after the beginning of 2030."""
    told: dict[str, Any] = {"conversation_id": "v1", "outgoing": True, **fields}
    return Message(
        id=f"m{which}", created_at=from_ms(EPOCH_MS + at), updated_at=from_ms(EPOCH_MS + at), **told
    )


def sent(which: int, at: int, /, **fields: Any) -> MessageSent:
    """We wrote."""
    own = message(which, at, **fields)
    return MessageSent(**SAKARI, occurred_at=own.created_at, message=own)


def received(which: int, at: int, /, **fields: Any) -> MessageReceived:
    """The contact wrote."""
    own = message(which, at, outgoing=False, **fields)
    return MessageReceived(**SAKARI, occurred_at=own.created_at, message=own)


def status(number: int, text: str, at: int, told_at: int) -> MessageStatusChanged:
    """What became of what we wrote *at*."""
    occurred_at = from_ms(EPOCH_MS + told_at)
    return MessageStatusChanged(**SAKARI, occurred_at=occurred_at, message=message(number, at), status=text)


def opt(*, out: bool, at: int) -> ContactOptedOut | ContactOptedIn:
    """The contact opts out or in."""
    kind = ContactOptedOut if out else ContactOptedIn
    return kind(**SAKARI, occurred_at=from_ms(EPOCH_MS + at), contact_id="c1")


def dnd(*, on: bool, at: int) -> UsersContactDndUpdated:
    """The same on the Users API."""
    at_time = from_ms(EPOCH_MS + at)
    return UsersContactDndUpdated(
        tenant="acme", location_id="l1", occurred_at=at_time, contact_id="u1", dnd=on
    )


def give(
    driver: Driver, *facts: Fact, received_at: int = DAY, backfill: bool = False, tags: Any = ()
) -> None:
    """Let the stage see *facts* about the contact, received *received_at* ms after the beginning."""
    contact = EnrichedContact(tenant="acme", contact_key=KEY, tags=tags)
    for fact in facts:
        name = f"{type(fact).__name__} {fact.occurred_at}"
        activity = Activity(tenant="acme", contact_key=KEY, fact_id=name, event=fact, contact=contact)
        at = EPOCH_MS + received_at
        driver.send("activity.enriched", KEY, activity, at=at, id=name, backfill=backfill)
    driver.run()


def window(driver: Driver, dimension: str = "all", width: str = "1h", hour: int = 0) -> Measures:
    """The share of a window that begins *hour* hours into 2030, for ``1d`` an hour before it."""
    start = EPOCH_MS + (-HOUR if width == "1d" else hour * HOUR)
    partial = driver.table("engagement.partials").get(f"acme|{dimension}|{width}|{from_ms(start)}|0")
    return partial.measures if partial else Measures()


def person(driver: Driver) -> ContactEngagement:
    """The contact."""
    found: ContactEngagement = driver.table("engagement.contacts")[KEY]
    return found


def reasons(driver: Driver) -> list[bytes]:
    """Why records were dead-lettered."""
    return [dict(record.headers)["dl_reason"] for record in driver.records("dead-letters")]


def test_a_sent_message_counts_in_its_hour_and_its_tenants_day(driver: Driver) -> None:
    """The hour is of UTC, the day Berlin's, an hour earlier."""
    give(driver, sent(1, 0))
    assert window(driver) == window(driver, width="1d") == Measures(sent=1, contacts_messaged=1)


def test_a_contact_counts_once_in_a_window(driver: Driver) -> None:
    """Three messages to one person are one contact messaged."""
    give(driver, sent(1, 0), sent(2, 1), sent(3, 2))
    assert window(driver) == Measures(sent=3, contacts_messaged=1)


def test_a_status_before_its_message_waits_for_nothing(driver: Driver) -> None:
    """A receipt that overtakes its message is booked at once; the message then counts as sent."""
    give(driver, status(1, "delivered", 0, 5))
    assert window(driver) == Measures(delivered=1)
    give(driver, sent(1, 0))
    assert window(driver) == Measures(sent=1, delivered=1, contacts_messaged=1)


@pytest.mark.parametrize(
    ("first", "then", "booked"),
    [
        (("delivered", 5), ("error", 6), {"failed": 1}),
        (("undelivered", 6), ("delivered", 5), {"failed": 1}),
        (("invalid", 5), ("delivered", 5), {"delivered": 1}),
        (("delivered", 5), ("queued", 9), {"delivered": 1}),
        (("delivered", 5), ("delivered", 6), {"delivered": 1}),
    ],
)
def test_the_terminal_status_that_occurred_last_holds(
    driver: Driver, first: tuple[str, int], then: tuple[str, int], booked: Any
) -> None:
    """Delivered wins where times are equal, states on the way don't count; a change books both."""
    give(driver, *(status(1, text, 0, at) for text, at in (first, then)))
    assert window(driver) == Measures(**booked)


def test_a_message_costs_what_was_told_last(driver: Driver) -> None:
    """An earlier price that comes later changes nothing."""
    for price, segments, at in (("0.0300", 3, 9), ("0.01", 1, 5)):
        told_at = from_ms(EPOCH_MS + at)
        fact = MessagePriced(
            **SAKARI, occurred_at=told_at, message=message(1, 0), segments=segments, price=price
        )
        give(driver, fact)
    assert window(driver) == Measures(segments=3, cost="0.03")


def test_an_inbound_message_replies_to_the_latest_outbound_one(driver: Driver) -> None:
    """The reply is booked where that message is, the inbound message where it is itself."""
    give(driver, sent(1, 0), sent(2, HOUR), received(3, 3 * HOUR))
    assert window(driver).replies == 0
    assert window(driver, hour=1).replies == window(driver, hour=1).repliers == 1
    assert window(driver, hour=3) == Measures(received=1, contacts_engaged=1)


def test_a_late_arriving_outbound_message_takes_over_the_reply(driver: Driver) -> None:
    """The reply is taken from the window it stood in, contact and seconds included."""
    give(driver, sent(1, 0), received(3, 3 * HOUR), sent(2, 2 * HOUR))
    assert window(driver) == Measures(sent=1, contacts_messaged=1)
    taken = window(driver, hour=2)
    assert (taken.replies, taken.repliers, list(taken.reply_seconds.values())) == (1, 1, [1])


@pytest.mark.parametrize(("after", "replies"), [(0, 1), (72 * HOUR, 1), (72 * HOUR + 1, 0), (-1, 0)])
def test_a_reply_comes_within_the_reply_window(driver: Driver, after: int, replies: int) -> None:
    """Both ends of the 72 hours belong to it."""
    give(driver, sent(1, HOUR), received(2, HOUR + after), received_at=5 * DAY)
    assert window(driver, hour=1).replies == person(driver).replies == replies


def test_a_reply_stays_in_its_conversation(driver: Driver) -> None:
    """What is written in another conversation, or in none, is no reply."""
    give(driver, sent(1, 0), received(2, 5, conversation_id="v2"), received(3, 6, conversation_id=None))
    assert (person(driver).replies, person(driver).received) == (0, 2)


def test_dimensions_are_those_of_the_first_fact(driver: Driver) -> None:
    """Tags that come or go later, or a job that only a webhook tells, change nothing."""
    tag = ContactTag(name="VIP", folded="vip", systems=("users",), tag_id="t1")
    give(driver, sent(1, 0, job_id="j/1", number="f" * 32), tags=(tag,))
    give(driver, status(1, "delivered", 0, 5))
    told = ("all", "tag:id:t1", "job:j%2F1", f"number:{'f' * 32}")
    assert [window(driver, name).delivered for name in told] == [1, 1, 1, 1]
    assert len(driver.table("engagement.partials")) == 2 * len(told)


def test_no_more_tags_than_allowed_become_dimensions(driver: Driver) -> None:
    """The first two of a contact's tags count, without an id by their folded name."""
    tags = [ContactTag(name=name, folded=name, systems=("sakari",)) for name in ("a|b", "c d", "e")]
    give(driver, opt(out=True, at=0), tags=tuple(tags))
    assert window(driver, "tag:name:a%7Cb").opt_outs == window(driver, "tag:name:c%20d").opt_outs == 1
    assert window(driver, "tag:name:e").opt_outs == 0


def test_a_late_fact_counts_for_the_contact_but_not_in_the_window(driver: Driver) -> None:
    """It is dead-lettered once, though it is late for an hour and a day."""
    give(driver, sent(1, 0), received_at=8 * DAY + 1)
    assert person(driver).sent == 1
    assert driver.table("engagement.partials") == {}
    assert reasons(driver) == [b"late"]


def test_a_fact_can_be_late_for_its_hour_and_not_for_its_day(driver: Driver) -> None:
    """Late is decided for each window: the day ends later."""
    give(driver, sent(1, 0), received_at=7 * DAY + HOUR + 1)
    assert (window(driver).sent, window(driver, width="1d").sent) == (0, 1)
    assert reasons(driver) == [b"late"]


def test_just_in_time_is_not_late(driver: Driver) -> None:
    """Grace is over when more than it has passed since the window's end."""
    give(driver, sent(1, 0), received_at=7 * DAY + HOUR)
    assert window(driver).sent == 1
    assert reasons(driver) == []


def test_backfill_is_never_late(driver: Driver) -> None:
    """A fact fetched as history counts in its window, also when it was left out as late before."""
    give(driver, sent(1, 0), received_at=30 * DAY)
    give(driver, sent(1, 0), received_at=31 * DAY, backfill=True)
    assert window(driver) == window(driver, width="1d") == Measures(sent=1, contacts_messaged=1)
    assert person(driver).sent == 1


def test_a_late_change_of_status_leaves_the_window_as_it_was(driver: Driver) -> None:
    """The contact's totals follow the change, the closed windows don't."""
    give(driver, status(1, "delivered", 0, 5))
    give(driver, status(1, "error", 0, 9), received_at=9 * DAY)
    assert (window(driver).delivered, window(driver).failed) == (1, 0)
    assert (person(driver).delivered, person(driver).failed) == (0, 1)


def test_a_late_outbound_message_is_nobodys_latest(driver: Driver) -> None:
    """A reply stays in its window; in the contact's totals it still is one reply."""
    give(driver, sent(1, 0), received(3, 3 * HOUR))
    give(driver, sent(2, 2 * HOUR), received_at=30 * DAY)
    assert (window(driver).replies, window(driver, hour=2)) == (1, Measures())
    assert (person(driver).sent, person(driver).replies) == (2, 1)


def test_the_score_is_zero_while_opted_out(driver: Driver) -> None:
    """On either system; S is kept, and shown again when both allow messages."""
    give(driver, sent(1, 0), received(2, 5), opt(out=True, at=6), dnd(on=True, at=6))
    assert (person(driver).score, person(driver).opted_out) == (0.0, True)
    give(driver, opt(out=False, at=7))
    assert person(driver).opted_out
    give(driver, dnd(on=False, at=7))
    assert person(driver).score == pytest.approx(63.2, abs=0.1)


def test_the_latest_opt_fact_decides(driver: Driver) -> None:
    """An older opt-in that comes later is counted and changes nothing."""
    give(driver, opt(out=True, at=9), opt(out=False, at=3))
    assert person(driver).opted_out
    assert (person(driver).opt_outs, person(driver).opt_ins) == (1, 1)


def test_what_feeds_no_measure_writes_nothing(driver: Driver) -> None:
    """Lists and messages of the Users API leave totals and windows alone."""
    at = Time("2030-01-01T00:00:00.000Z")
    inbound = UsersMessageReceived(tenant="acme", location_id="l1", occurred_at=at, contact_id="u1")
    give(driver, inbound, ListOptedOut(**SAKARI, occurred_at=at, contact_id="c1"))
    assert driver.records("engagement.contacts") == driver.records("engagement.partials") == []
    assert driver.state("engagement") == {}


def test_a_tenant_without_zone_has_days_of_utc(driver: Driver) -> None:
    """Facts of a tenant that the settings don't know are counted all the same."""
    fact = sent(1, 0)
    activity = Activity(tenant="beta", contact_key="beta:m:1", fact_id="f", event=fact)
    driver.send("activity.enriched", "beta:m:1", activity)
    driver.run()
    assert "beta|all|1d|2030-01-01T00:00:00.000Z|0" in driver.table("engagement.partials")


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("acme:m:2", {}, b"wrong-key"),
        (KEY, {"occurred_at": Time("soon")}, b"invalid-time"),
        (KEY, {"occurred_at": Time("2030-01-01")}, b"invalid-time"),
        (KEY, {"occurred_at": Time("9999-12-31T23:59:59.999Z")}, b"invalid-time"),
    ],
)
def test_a_bad_activity_is_dead_lettered_as_what_it_is(
    driver: Driver, key: str, changes: dict[str, Any], reason: bytes
) -> None:
    """A wrong key or time is told as such, and nothing is counted."""
    fact = ContactOptedOut(**{**SAKARI, "occurred_at": Time(""), "contact_id": "c1"} | changes)
    driver.send("activity.enriched", key, Activity(tenant="acme", contact_key=KEY, fact_id="f", event=fact))
    driver.run()
    assert reasons(driver) == [reason]
    assert driver.state("engagement") == {}


def test_a_fact_of_a_later_version_is_put_aside(driver: Driver) -> None:
    """It counts after the upgrade, when it is put back; until then nothing of it is in the sums."""
    fact = UnknownFact(tenant="acme", occurred_at=from_ms(EPOCH_MS), fact_type="later.v1", body="{}")
    driver.send("activity.enriched", KEY, Activity(tenant="acme", contact_key=KEY, fact_id="f", event=fact))
    driver.run()
    assert reasons(driver) == [b"unknown-fact"]
    assert driver.state("engagement") == {}


def test_a_null_is_dead_lettered(driver: Driver) -> None:
    """A tombstone where facts are expected is refused."""
    driver.send("activity.enriched", KEY, None)
    driver.run()
    assert len(reasons(driver)) == 1


def test_bookings_are_forgotten_after_their_days(driver: Driver) -> None:
    """45 days after a message was made and heard of, only totals and shares are left of it."""
    give(driver, sent(1, 0), received(2, 5), opt(out=True, at=6))
    lasting = {b"contacts", b"shares", b"clock"}
    assert stores_after(driver, 44) == lasting | {b"bookings", b"members", b"seen", b"timelines"}
    assert stores_after(driver, 47) == lasting


def stores_after(driver: Driver, days: int) -> set[bytes]:
    """The stores that hold something when it is *days* days into 2030."""
    driver.send("clock.ticks", "0", Tick(from_ms(EPOCH_MS + days * DAY)))
    driver.run()
    return {key.split(b"\0")[1] for key in driver.state("engagement")}
