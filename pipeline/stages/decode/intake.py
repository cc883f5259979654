"""One received record on its way through the stage: what is known of it, and what comes of it."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from pipeline.errors import RecordError
from pipeline.events import Received
from pipeline.identity import Identity, e164, fact_id_of, is_short, quoted
from pipeline.instants import Time, from_ms
from pipeline.stage import Emit, Event, Outcome, Put, Store, Stores, Write
from pipeline.stages.decode.config import TenantConfig
from pipeline.stages.decode.facts import seen_key
from pipeline.stages.decode.stores import SEEN

__all__ = ["Intake", "Keys", "table_key"]


class Keys:
    """Contact keys and number hashes, remembered: each is an HMAC."""

    def __init__(self, identity: Identity) -> None:
        self.contact = lru_cache(maxsize=262_144)(identity.contact_key)
        self._identity = identity
        self._remembered = lru_cache(maxsize=8_192)(self._own_number)

    def own_number(self, tenant: str, number: str | None, country: str | None) -> str | None:
        """What stands for one of our own numbers; None unless it is a valid one."""
        return self._remembered(tenant, number, country) if number and is_short(number, country) else None

    def _own_number(self, tenant: str, number: str, country: str | None) -> str | None:
        mobile = e164(number, country)
        return self._identity.number(tenant, mobile) if mobile else None


class Intake:
    """
    One received record, and the outcome that grows from it.

    Nothing outside is changed: ``outcome`` hands over what the stage returns.
    """

    __slots__ = (
        "_emits",
        "_read",
        "_seen",
        "_writes",
        "account",
        "event",
        "keys",
        "record",
        "tenant",
        "terms",
    )

    def __init__(self, read: Stores, event: Event[Received], terms: TenantConfig, keys: Keys) -> None:
        self.event = event
        self.record = event.value
        self.tenant = event.value.tenant
        self.account = event.value.account  #: replaced by what a webhook's body says
        self.terms = terms
        self.keys = keys
        self._read = read
        self._seen: dict[str, tuple[str, ...]] = {}
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

    def news(self, name: str, immutable_time: Time, kinds: Iterable[str]) -> list[str]:
        """
        Those of *kinds* of facts that were not seen before of the resource *name*; from now on they were.

        *name* is its `resource_name`, *immutable_time* one that all its records tell alike.
        """
        place = seen_key(name, immutable_time)
        seen = self._seen.get(place) or self._read.get(SEEN, place) or ()
        new = [kind for kind in kinds if kind not in seen]
        if new:
            self._seen[place] = (*seen, *new)
        return new

    def fact(self, topic: str, key: str, value: Any, name: str, kind: str) -> None:
        """Write the fact *kind* of the resource *name*, which tells no immutable time, unless it was seen."""
        if self.news(name, value.occurred_at, (kind,)):
            self.tell(topic, key, value, fact_id_of(name, kind))

    def tell(self, topic: str, key: str, value: Any, fact_id: str) -> None:
        """Write a fact that is known to be new."""
        self._emits.append(Emit(topic, key, value, fact_id, value.occurred_at))

    def outcome(self) -> Outcome:
        """All that comes of the record."""
        seen = [Put(SEEN, place, kinds) for place, kinds in self._seen.items()]
        return Outcome((*self._writes, *seen), tuple(self._emits))


def table_key(contact_key: str, native_id: str) -> str:
    """The key of one native contact in its table."""
    return f"{contact_key}|{quoted(native_id)}"
