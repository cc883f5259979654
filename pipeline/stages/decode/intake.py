"""One received record on its way through the stage: what is known of it, and what comes of it."""

from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from pipeline.errors import RecordError
from pipeline.events import Received
from pipeline.identity import Identity, e164
from pipeline.instants import Time, from_ms
from pipeline.stage import Emit, Event, Outcome, Put, Store, Stores, Write
from pipeline.stages.decode.config import TenantConfig
from pipeline.stages.decode.facts import day_of, seen_key
from pipeline.stages.decode.stores import SEEN

__all__ = ["Intake", "Keys", "table_key"]


class Keys:
    """Contact keys and number hashes, remembered: each is an HMAC."""

    def __init__(self, identity: Identity) -> None:
        self.contact = lru_cache(maxsize=262_144)(identity.contact_key)
        self._number = lru_cache(maxsize=8_192)(identity.number)

    def own_number(self, tenant: str, number: str | None, country: str | None) -> str | None:
        """What stands for one of our own numbers; None unless it is a valid one."""
        mobile = e164(number, country) if number else None
        return self._number(tenant, mobile) if mobile else None


class Intake:
    """
    One received record, and the outcome that grows from it.

    Nothing outside is changed: ``outcome`` hands over what the stage returns.
    """

    __slots__ = ("_emits", "_read", "_writes", "account", "event", "keys", "record", "tenant", "terms")

    def __init__(self, read: Stores, event: Event[Received], terms: TenantConfig, keys: Keys) -> None:
        self.event = event
        self.record = event.value
        self.tenant = event.value.tenant
        self.account = event.value.account  #: replaced by what a webhook's body says
        self.terms = terms
        self.keys = keys
        self._read = read
        self._writes: list[Write] = []
        self._emits: list[Emit] = []

    @property
    def polled(self) -> bool:
        """Whether the record is an item as an API listed it."""
        return self.record.resource != "webhook"

    @property
    def received_at(self) -> Time:
        """When the record arrived."""
        return from_ms(self.event.received_at)

    @property
    def observed_at(self) -> Time:
        """From when on the record can be true: the start of its scan, or its arrival."""
        return from_ms(self.record.scan_started_at or self.event.received_at)

    def mobile(self, number: str | int | None, country: str | None) -> str | None:
        """*number* in E.164; None unless it is valid."""
        return e164(str(number), country or self.terms.region) if number else None

    def own(self, account: str | None, accounts: frozenset[str], where: str) -> None:
        """
        Take *account*, else the header's, for the one that the record belongs to.

        Raises:
            RecordError: there is none, or it is not among the tenant's *accounts*.
        """
        account = account or self.record.account
        if not account:
            raise RecordError("invalid", f"{where}: is missing")
        if account not in accounts:
            raise RecordError("foreign-account", f"{where}: does not belong to the tenant")
        self.account = account

    def expect_key(self, key: str) -> None:
        """
        The record's key must be *key*: what is remembered stands on the key's partition.

        Raises:
            RecordError: it is another.
        """
        if self.event.key != key:
            raise RecordError("wrong-key", "the record's key is not that of its contact or resource")

    def get(self, store: Store[Any], key: str) -> Any:
        """What *store* held before this record."""
        return self._read.get(store, key)

    def put(self, store: Store[Any], key: str, value: Any) -> None:
        """Remember *value*."""
        self._writes.append(Put(store, key, value))

    def emit(
        self, topic: str, key: str, value: msgspec.Struct | None, occurred_at: str | None = None
    ) -> None:
        """Write a table record; None is a tombstone."""
        self._emits.append(Emit(topic, key, value, "", Time(occurred_at or "")))

    def first(self, fact_id: str, immutable_time: Time) -> bool:
        """Whether *fact_id* was not seen before; from now on it was."""
        key = seen_key(fact_id, day_of(immutable_time))
        if self._read.get(SEEN, key) is not None:
            return False
        self._writes.append(Put(SEEN, key, True))
        return True

    def fact(
        self, topic: str, key: str, value: Any, fact_id: str, immutable_time: Time | None = None
    ) -> None:
        """Write a fact unless it was seen; *immutable_time* is its resource's, if that has one."""
        if self.first(fact_id, immutable_time or value.occurred_at):
            self._emits.append(Emit(topic, key, value, fact_id, value.occurred_at))

    def tell(self, topic: str, key: str, value: Any, fact_id: str) -> None:
        """Write a fact that is known to be new."""
        self._emits.append(Emit(topic, key, value, fact_id, value.occurred_at))

    def outcome(self) -> Outcome:
        """All that comes of the record."""
        return Outcome(writes=tuple(self._writes), emit=tuple(self._emits))


def table_key(contact_key: str, native_id: str) -> str:
    """The key of one native contact in its table."""
    return f"{contact_key}|{quote(native_id, safe='')}"
