"""
One value of every event type, all of its fields set, from which the golden files were written.

``python -m tests.contract.golden_values`` writes the files of types that have none yet, and never changes
one that is there: what they hold has been promised to readers. When a field is added (with a default), the
file becomes ``<type>~1.json`` (``~2`` …), which must be readable for ever, and a new one takes its place.
"""

from pathlib import Path
from typing import Any

import orjson

from pipeline import events
from pipeline.codec import Codec, Output, text_headers
from pipeline.events import ce_type
from pipeline.instants import Time
from pipeline.stage import Emit, Event
from pipeline.topics import load as load_topics

FOLDER = Path(__file__).parent / "golden"
KEY = "acme:m:00112233445566778899aabbccddeeff"
OTHER_KEY = "acme:m:ffeeddccbbaa99887766554433221100"
HASH = "0f" * 16
MORNING, NOON, EVENING = (Time(f"2030-01-10T{hour}:00:00.250Z") for hour in ("08", "12", "20"))
FACT: dict[str, Any] = {"tenant": "acme", "account_id": "account-1", "occurred_at": NOON}
USERS_FACT: dict[str, Any] = {
    "tenant": "acme",
    "location_id": "location-1",
    "occurred_at": NOON,
    "webhook_id": "w1",
}
CONTACT_FACT: dict[str, Any] = {**USERS_FACT, "contact_id": "u1"}
MESSAGE = events.Message(
    id="m1",
    conversation_id="v1",
    contact_id="c1",
    outgoing=True,
    status="delivered",
    text="Grüße 👋",
    template_id="t1",
    job_id="j1",
    campaign_id="p1",
    group_id="g1",
    number=HASH,
    country="US",
    segments=2,
    price="0.0158",
    media=1,
    source="api",
    created_at=MORNING,
    updated_at=NOON,
)
CONVERSATION: dict[str, Any] = {**FACT, "conversation_id": "v1", "contact_id": "c1", "number": HASH}
USERS_MESSAGE: dict[str, Any] = {
    **CONTACT_FACT,
    "message_id": "x1",
    "conversation_id": "y1",
    "message_type": "SMS",
    "text": "hello",
    "status": "delivered",
}
TAG = events.ContactTag(
    name="VIP",
    folded="vip",
    systems=("sakari", "users"),
    tag_id="tag-1",
    location_id="location-1",
    colour="#c0392b",
    description="Answers within the hour",
)
ENRICHED = events.EnrichedContact(
    tenant="acme",
    contact_key=KEY,
    first_name="Ada",
    last_name="Example",
    email="ada@example.com",
    mobile="+12025550101",
    country="US",
    natives=(
        events.NativeContact(system="sakari", account_id="account-1", contact_id="c1", updated_at=NOON),
        events.NativeContact(system="users", account_id="location-1", contact_id="u1"),
    ),
    tags=(TAG,),
    opted_out=True,
    dnd=True,
    updated_at=NOON,
)
MEASURES = events.Measures(
    sent=10,
    delivered=8,
    failed=1,
    segments=12,
    cost="0.0948",
    contacts_messaged=7,
    replies=3,
    repliers=2,
    reply_seconds={"12": 1, "5": 2},
    received=4,
    opt_outs=1,
    opt_ins=1,
    conversations_started=2,
    conversations_closed=1,
    contacts_engaged=2,
)
WINDOW = "acme|all|1h|2030-01-10T08:00:00.000Z"

#: ``ce_type`` -> topic, key, value
VALUES: dict[str, tuple[str, str, Any]] = {
    ce_type(type(value)): (topic, key, value)
    for topic, key, value in (
        ("sakari.events", KEY, events.MessageSent(**FACT, message=MESSAGE)),
        ("sakari.events", KEY, events.MessageReceived(**FACT, message=MESSAGE)),
        (
            "sakari.events",
            KEY,
            events.MessageStatusChanged(
                **FACT, message=MESSAGE, status="error", error_code="MSG-001", error="carrier refused"
            ),
        ),
        ("sakari.events", KEY, events.MessagePriced(**FACT, message=MESSAGE, segments=2, price="0.0158")),
        ("sakari.events", KEY, events.ConversationStarted(**CONVERSATION)),
        ("sakari.events", KEY, events.ConversationClosed(**CONVERSATION)),
        ("sakari.events", KEY, events.ContactOptedOut(**FACT, contact_id="c1")),
        ("sakari.events", KEY, events.ContactOptedIn(**FACT, contact_id="c1")),
        ("sakari.events", KEY, events.ListOptedOut(**FACT, contact_id="c1", list_id="l1")),
        ("sakari.events", KEY, events.ListOptedIn(**FACT, contact_id="c1", list_id="l1")),
        (
            "sakari.events",
            KEY,
            events.ContactMoved(**FACT, contact_id="c1", from_key=KEY, to_key=OTHER_KEY),
        ),
        ("sakari.events", KEY, events.SakariOther(**FACT, event_type="balance", body='{"a":1}')),
        (
            "sakari.contacts",
            f"{KEY}|c1",
            events.SakariContact(
                tenant="acme",
                account_id="account-1",
                contact_id="c1",
                first_name="Ada",
                last_name="Example",
                email="ada@example.com",
                mobile="+12025550101",
                country="US",
                attributes={"size": "M", "city": "Köln"},
                tags=(events.SakariTag("VIP", visible=False),),
                lists=("l1",),
                valid=True,
                opted_out=True,
                opted_changed_at=MORNING,
                created_at=MORNING,
                updated_at=NOON,
            ),
        ),
        ("users.events", KEY, events.UsersContactTagsUpdated(**CONTACT_FACT, tags=("VIP", "walk-in"))),
        ("users.events", KEY, events.UsersContactDndUpdated(**CONTACT_FACT, dnd=True)),
        ("users.events", KEY, events.UsersMessageReceived(**USERS_MESSAGE)),
        ("users.events", KEY, events.UsersMessageSent(**USERS_MESSAGE)),
        ("users.events", KEY, events.UsersContactMoved(**CONTACT_FACT, from_key=KEY, to_key=OTHER_KEY)),
        ("users.events", KEY, events.UsersOther(**USERS_FACT, event_type="NoteCreate", body="{}")),
        (
            "users.contacts",
            f"{KEY}|u1",
            events.UsersContact(
                tenant="acme",
                location_id="location-1",
                contact_id="u1",
                first_name="Ada",
                last_name="Example",
                email="ada@example.com",
                phone="+12025550101",
                country="US",
                custom_fields={"f1": "text", "f2": "[1,2]"},
                tags=("VIP",),
                dnd=True,
                assigned_to="user-1",
                created_at=MORNING,
                updated_at=NOON,
            ),
        ),
        (
            "users.tags",
            "acme:tag-1",
            events.LocationTag(
                tenant="acme",
                location_id="location-1",
                tag_id="tag-1",
                name="VIP",
                colour="#c0392b",
                description="Answers within the hour",
                details_id="d1",
                created_by="user-1",
                created_at=MORNING,
                updated_at=NOON,
            ),
        ),
        (
            "users.users",
            "acme:user-1",
            events.User(
                tenant="acme",
                user_id="user-1",
                name="Grace Sample",
                first_name="Grace",
                last_name="Sample",
                email="grace@example.com",
                phone="+12025550102",
                role="admin",
                type="account",
                location_ids=("location-1",),
                deleted=True,
            ),
        ),
        (
            "users.accounts",
            "acme:profile-1",
            events.SocialAccount(
                tenant="acme",
                location_id="location-1",
                account_id="profile-1",
                profile_id="oauth-1",
                name="Acme",
                platform="facebook",
                type="page",
                expired=True,
            ),
        ),
        (
            "users.statistics",
            f"acme:{HASH[:16]}:{NOON}",
            events.StatisticsSnapshot(
                tenant="acme",
                location_id="location-1",
                dialect="catalogue",
                profile_ids=("oauth-1",),
                profiles_hash=HASH[:16],
                window_start=MORNING,
                window_end=NOON,
                observed_at=NOON,
                statistics_id="s1",
                metrics='{"likes":3}',
            ),
        ),
        (
            "sources.events",
            KEY,
            events.SourceEvent(
                tenant="acme",
                source="survey",
                event_type="scored",
                event_id="e1",
                occurred_at=NOON,
                body='{"score":9}',
            ),
        ),
        ("contacts.enriched", KEY, ENRICHED),
        (
            "activity.enriched",
            KEY,
            events.Activity(
                tenant="acme",
                contact_key=KEY,
                fact_id="ab" * 32,
                event=events.MessageSent(**FACT, message=MESSAGE),
                contact=ENRICHED,
            ),
        ),
        (
            "engagement.contacts",
            KEY,
            events.ContactEngagement(
                tenant="acme",
                contact_key=KEY,
                sent=3,
                delivered=2,
                failed=1,
                segments=4,
                cost="0.0316",
                received=2,
                replies=1,
                opt_outs=1,
                opt_ins=1,
                conversations_started=1,
                conversations_closed=1,
                first_activity_at=MORNING,
                last_activity_at=NOON,
                score=67.03,
                score_sum=1.11,
                score_at=NOON,
                opted_out=True,
            ),
        ),
        (
            "engagement.partials",
            f"{WINDOW}|1",
            events.Partial(window_key=WINDOW, partition=1, measures=MEASURES, revision=4),
        ),
        (
            "engagement.metrics",
            WINDOW,
            events.WindowMetrics(
                tenant="acme",
                dimension="all",
                width="1h",
                start=Time("2030-01-10T08:00:00.000Z"),
                end=Time("2030-01-10T09:00:00.000Z"),
                revision=5,
                closed=True,
                measures=MEASURES,
                ratios=events.Ratios(delivery=0.8, failure=0.1, reply=0.285714, opt_out=0.142857),
                reply_seconds_p50=120,
                reply_seconds_p90=3600,
                reply_seconds_p99=86400,
            ),
        ),
        (
            "statistics.posted",
            "6b2f0e0c-5d43-5f5b-9f0f-000000000001",
            events.PostedStatistics(
                statistics_id="6b2f0e0c-5d43-5f5b-9f0f-000000000001",
                tenant="acme",
                location_id="location-1",
                dialect="catalogue",
                outcome="rejected",
                window_key=WINDOW,
                contact_key=KEY,
                revision=5,
                closed=True,
                attempts=2,
                status=422,
                error="metrics: must be an object",
                posted_at=EVENING,
            ),
        ),
        ("clock.ticks", "1", events.Tick(NOON)),
        (
            "poll.schedule",
            "acme|location-1|users.tags",
            events.PollState(
                interval_s=60.0,
                next_due_at=NOON,
                scan=7,
                scan_started_at=MORNING,
                cursor='{"offset":100}',
                seen=100,
                completed=6,
                failures=1,
                error="tags.list: no answer within 30 s",
            ),
        ),
        (
            "tokens",
            "acme|location-1",
            events.Token(sealed="c2VhbGVk", expires_at=EVENING, scopes=("users.readonly",)),
        ),
        ("meta", "pipeline.identity", events.Fingerprint("cd" * 32)),
        (
            "jobs",
            "5f0c2a91",
            events.Job(
                id="5f0c2a91",
                kind="replay",
                spec={"what": "range", "topic": "sakari.events"},
                state="failed",
                wanted="pause",
                done=1200,
                total=5000,
                per_s=480.5,
                cursor={"0": 1200},
                begun_at=MORNING,
                updated_at=NOON,
                error="Kafka did not answer",
            ),
        ),
        ("jobs.wanted", "5f0c2a91", events.JobWish(id="5f0c2a91", wanted="pause", wished_at=NOON)),
        (
            "redactions",
            KEY,
            events.Redaction(tenant="acme", erased_at=NOON, report="5f0c2a91"),
        ),
        (
            "audit",
            "dead-letters.discarded",
            events.AuditEntry(
                action="dead-letters.discarded",
                by="ada",
                at=NOON,
                why="sent by a test",
                what=("0-1200", "1-87"),
                job="5f0c2a91",
            ),
        ),
    )
}
CAUSE: Event[None] = Event(
    topic="sources.received",
    key="acme:s:c1",
    value=None,
    id="cause-1",
    received_at=1_894_276_800_250,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    backfill=True,
)


def codec() -> Codec:
    """The codec that golden records are written and read by."""
    return Codec(load_topics(), 2)


def written(name: str) -> Output:
    """The record of the golden value of type *name*, as a stage writes it today."""
    topic, key, value = VALUES[name]
    occurred_at = getattr(value, "occurred_at", Time(""))
    return codec().encode(Emit(topic, key, value, "", occurred_at), CAUSE, "stage", 0)[0]


def as_file(output: Output) -> dict[str, Any]:
    """What a golden file holds of *output*; all of it is text."""
    return {
        "topic": output.topic,
        "key": (output.key or b"").decode(),
        "timestamp": output.timestamp,
        "headers": text_headers(output.headers),
        "value": (output.value or b"").decode(),
    }


def file_of(name: str) -> Path:
    """Where the golden record of type *name* is."""
    return FOLDER / f"{name}.json"


def main() -> None:
    """Write the files that are missing."""
    for name in VALUES:
        if not file_of(name).exists():
            content = orjson.dumps(as_file(written(name)), option=orjson.OPT_INDENT_2)
            file_of(name).write_bytes(content + b"\n")


if __name__ == "__main__":
    main()
