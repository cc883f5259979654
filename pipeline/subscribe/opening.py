"""
What opens a subscription or a table.

The overloads say of each public topic what its events are, so that type checkers know; they are compared with
topics.yaml by a test.
"""

from ssl import SSLContext
from typing import Any, Literal, Required, TypedDict, Unpack, overload

from pipeline.checked_yaml import did_you_mean
from pipeline.codec import Codec
from pipeline.errors import ConfigError
from pipeline.events import (
    Activity,
    ContactEngagement,
    EnrichedContact,
    LocationTag,
    PostedStatistics,
    Received,
    SakariContact,
    SakariFact,
    SocialAccount,
    SourceEvent,
    StatisticsSnapshot,
    User,
    UsersContact,
    UsersFact,
    WindowMetrics,
)
from pipeline.subscribe.cluster import Cluster
from pipeline.subscribe.member import Member, Plan
from pipeline.subscribe.rows import reader
from pipeline.subscribe.selection import Keys, Selection, Types
from pipeline.subscribe.start import Start, checked
from pipeline.subscribe.subscription import Errors, Subscription
from pipeline.subscribe.table import Table, TableReader
from pipeline.topics import Topic, Topics, load

__all__ = ["Options", "TableOptions", "subscribe", "table"]


class TableOptions(TypedDict, total=False):
    """What `table` takes beside the topic; from ``client_id`` on, for aiokafka's clients."""

    bootstrap_servers: str | None
    tenant: str
    key: Keys | None
    errors: Errors
    topics: Topics | None
    client_id: str
    security_protocol: str
    sasl_mechanism: str
    sasl_plain_username: str
    sasl_plain_password: str
    ssl_context: SSLContext


class Options(TableOptions, total=False):
    """What `subscribe` takes beside the topic."""

    group: Required[str]
    start: Start
    types: Types
    exactly_once: bool
    commit_every_s: float
    drain_s: float
    stuck_s: float
    session_s: float


@overload
def subscribe(topic: Literal["sources.received"], **options: Unpack[Options]) -> Subscription[Received]: ...
@overload
def subscribe(topic: Literal["sakari.events"], **options: Unpack[Options]) -> Subscription[SakariFact]: ...
@overload
def subscribe(topic: Literal["users.events"], **options: Unpack[Options]) -> Subscription[UsersFact]: ...
@overload
def subscribe(topic: Literal["sources.events"], **options: Unpack[Options]) -> Subscription[SourceEvent]: ...
@overload
def subscribe(
    topic: Literal["sakari.contacts"], **options: Unpack[Options]
) -> Subscription[SakariContact | None]: ...
@overload
def subscribe(
    topic: Literal["users.contacts"], **options: Unpack[Options]
) -> Subscription[UsersContact | None]: ...
@overload
def subscribe(
    topic: Literal["users.tags"], **options: Unpack[Options]
) -> Subscription[LocationTag | None]: ...
@overload
def subscribe(topic: Literal["users.users"], **options: Unpack[Options]) -> Subscription[User | None]: ...
@overload
def subscribe(
    topic: Literal["users.accounts"], **options: Unpack[Options]
) -> Subscription[SocialAccount | None]: ...
@overload
def subscribe(
    topic: Literal["users.statistics"], **options: Unpack[Options]
) -> Subscription[StatisticsSnapshot | None]: ...
@overload
def subscribe(
    topic: Literal["contacts.enriched"], **options: Unpack[Options]
) -> Subscription[EnrichedContact | None]: ...
@overload
def subscribe(topic: Literal["activity.enriched"], **options: Unpack[Options]) -> Subscription[Activity]: ...
@overload
def subscribe(
    topic: Literal["engagement.contacts"], **options: Unpack[Options]
) -> Subscription[ContactEngagement | None]: ...
@overload
def subscribe(
    topic: Literal["engagement.metrics"], **options: Unpack[Options]
) -> Subscription[WindowMetrics | None]: ...
@overload
def subscribe(
    topic: Literal["statistics.posted"], **options: Unpack[Options]
) -> Subscription[PostedStatistics]: ...
@overload
def subscribe(topic: Literal["dead-letters"], **options: Unpack[Options]) -> Subscription[Received]: ...
@overload
def subscribe(
    topic: str,
    *,
    group: str,
    bootstrap_servers: str | None = None,
    start: Start = "earliest",
    types: Types = (),
    tenant: str = "",
    key: Keys | None = None,
    errors: Errors = "raise",
    exactly_once: bool = False,
    commit_every_s: float = 1.0,
    drain_s: float = 30.0,
    stuck_s: float = 300.0,
    session_s: float = 45.0,
    topics: Topics | None = None,
    **client: Any,
) -> Subscription[Any]: ...
def subscribe(
    topic: str,
    *,
    group: str,
    bootstrap_servers: str | None = None,
    start: Start = "earliest",
    types: Types = (),
    tenant: str = "",
    key: Keys | None = None,
    errors: Errors = "raise",
    exactly_once: bool = False,
    commit_every_s: float = 1.0,
    drain_s: float = 30.0,
    stuck_s: float = 300.0,
    session_s: float = 45.0,
    topics: Topics | None = None,
    **client: Any,
) -> Subscription[Any]:
    """
    The records of *topic* that this member of *group* gets, from where the group has committed.

    *start* is for a group that has not committed yet. *types*, *tenant* and *key* say what is wanted;
    *errors* what is done about a record that cannot be read. With *exactly_once*,
    `Subscription.transaction` writes outputs and offsets together. What is done is committed every
    *commit_every_s*, and whenever nothing waits; *drain_s* is how long a rebalance waits for what is in
    hand, *stuck_s* how long it may be in hand before others get the partitions, and *session_s* how long a
    member that died keeps its own. *topics* are by default all of ``topics.yaml``; *client* goes to
    aiokafka's clients, such as ``security_protocol``.

    Raises:
        ConfigError: something of this cannot be used; it names the field.
    """
    known = load() if topics is None else topics
    found = _topic(topic, known)
    selection = Selection(found, types=types, tenant=tenant, key=key)
    if errors != "raise" and not callable(errors):
        raise ConfigError(f"errors: {errors!r}; allowed: raise, or a function that is given each Unreadable")
    if not group:
        raise ConfigError("group: name your team's consumer group")
    plan = Plan(
        topic=topic,
        group=group,
        start=checked(start),
        exactly_once=exactly_once,
        commit_every_s=commit_every_s,
        drain_s=drain_s,
        stuck_s=stuck_s,
        session_s=session_s,
    )
    member = Member(Cluster(bootstrap_servers, client), plan, selection.may_hold)
    codec = Codec(known, partitions=1)
    return Subscription(member, codec, topic, selection, errors, exactly_once=exactly_once)


@overload
def table(topic: Literal["sakari.contacts"], **options: Unpack[TableOptions]) -> Table[SakariContact]: ...
@overload
def table(topic: Literal["users.contacts"], **options: Unpack[TableOptions]) -> Table[UsersContact]: ...
@overload
def table(topic: Literal["users.tags"], **options: Unpack[TableOptions]) -> Table[LocationTag]: ...
@overload
def table(topic: Literal["users.users"], **options: Unpack[TableOptions]) -> Table[User]: ...
@overload
def table(topic: Literal["users.accounts"], **options: Unpack[TableOptions]) -> Table[SocialAccount]: ...
@overload
def table(
    topic: Literal["users.statistics"], **options: Unpack[TableOptions]
) -> Table[StatisticsSnapshot]: ...
@overload
def table(topic: Literal["contacts.enriched"], **options: Unpack[TableOptions]) -> Table[EnrichedContact]: ...
@overload
def table(
    topic: Literal["engagement.contacts"], **options: Unpack[TableOptions]
) -> Table[ContactEngagement]: ...
@overload
def table(topic: Literal["engagement.metrics"], **options: Unpack[TableOptions]) -> Table[WindowMetrics]: ...
@overload
def table(
    topic: str,
    *,
    bootstrap_servers: str | None = None,
    tenant: str = "",
    key: Keys | None = None,
    errors: Errors = "raise",
    topics: Topics | None = None,
    **client: Any,
) -> Table[Any]: ...
def table(
    topic: str,
    *,
    bootstrap_servers: str | None = None,
    tenant: str = "",
    key: Keys | None = None,
    errors: Errors = "raise",
    topics: Topics | None = None,
    **client: Any,
) -> Table[Any]:
    """
    The compacted *topic* as a mapping of key to value, read whole by this process, without a group.

    Raises:
        ConfigError: *topic* is no table, or something else cannot be used; it names the field.
    """
    known = load() if topics is None else topics
    found = _topic(topic, known)
    if not found.is_table:
        tables = ", ".join(
            name for name, each in known.items() if each.is_table and each.visibility == "public"
        )
        raise ConfigError(f"topic: {topic} keeps no state by key; allowed: {tables}")
    selection = Selection(found, tenant=tenant, key=key)
    read = reader(Codec(known, partitions=1), topic, selection, errors)
    return Table(TableReader(Cluster(bootstrap_servers, client), topic, read))


def _topic(name: str, known: Topics) -> Topic:
    if name not in known:
        public = {each: topic for each, topic in known.items() if topic.visibility == "public"}
        guess = did_you_mean(name, public)
        raise ConfigError(f"topic: there is no {name!r}{guess}; allowed: {', '.join(public)}")
    return known[name]
