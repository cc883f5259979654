"""
Subscribing to the topics, for other teams; the base install is enough.

`subscribe` gives the typed records of a topic to the members of a group, `table` a compacted topic as a
mapping that keeps itself current. docs/subscribe.md is the guide; `pipeline.testing` has doubles of both
for tests. What there is to tell goes to Python's own `logging`, so that a program that configures nothing
sees warnings alone.
"""

from pipeline.errors import BrokerError, ConfigError
from pipeline.subscribe.opening import subscribe, table
from pipeline.subscribe.record import Record, Unreadable
from pipeline.subscribe.subscription import Subscription
from pipeline.subscribe.table import Change, Table
from pipeline.subscribe.transaction import Transaction

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
