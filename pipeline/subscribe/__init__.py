"""
Subscribing to the topics, for other teams; the base install is enough.

`subscribe` gives the typed records of a topic to the members of a group, `table` a compacted topic as a
mapping that keeps itself current. docs/subscribe.md is the guide; `pipeline.testing` has doubles of both
for tests. What there is to tell goes to Python's own `logging`, so that a program that configures nothing
sees warnings alone.
"""

from typing import Any

from pipeline.checked_yaml import did_you_mean
from pipeline.codec import Codec
from pipeline.errors import BrokerError, ConfigError
from pipeline.subscribe.cluster import Cluster
from pipeline.subscribe.member import Member, Plan
from pipeline.subscribe.record import Record, Unreadable
from pipeline.subscribe.rows import reader
from pipeline.subscribe.selection import Keys, Selection, Types
from pipeline.subscribe.start import Start, checked
from pipeline.subscribe.subscription import Errors, Subscription
from pipeline.subscribe.table import Change, Table, TableReader
from pipeline.subscribe.transaction import Transaction
from pipeline.topics import Topic, Topics, load

__all__ = [
    "BrokerError",
    "Change",
    "ConfigError",
    "Record",
    "Subscription",
    "Table",
    "Transaction",
    "Unreadable",
    "subscribe",
    "table",
]


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
