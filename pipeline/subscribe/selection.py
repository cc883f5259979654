"""Which records of a topic a subscriber wants: by type, tenant and key, before decoding where that can be."""

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import msgspec

from pipeline.checked_yaml import did_you_mean
from pipeline.errors import ConfigError
from pipeline.events import TYPES, Activity, UnknownFact, ce_type
from pipeline.stage import Event
from pipeline.subscribe.record import Fetched
from pipeline.topics import Topic

__all__ = ["Keys", "Selection", "Types"]

#: ``ce_type``s or structs of `pipeline.events`.
Types: TypeAlias = Collection[str | type[msgspec.Struct]]

#: One key, several, or what says of a key whether it is wanted.
Keys: TypeAlias = str | Collection[str] | Callable[[str], bool]


class Selection:
    """
    What of *topic* is wanted; what is not given is not looked at.

    Types, tenant and key are told by headers and key, so that what is not wanted is never decoded. Two things
    stand in the value alone: the fact inside an `Activity`, and the tenant of ``statistics.posted``.

    Raises:
        ConfigError: a type does not stand on *topic*.
    """

    def __init__(self, topic: Topic, *, types: Types = (), tenant: str = "", key: Keys | None = None) -> None:
        names = {_name(each) for each in types}
        self._inner = names - set(topic.types) if topic.types == (ce_type(Activity),) else set()
        _check_types(topic, names - self._inner, self._inner)
        self._types = {each.encode() for each in names - self._inner}
        self._only_type = topic.types[0].encode() if len(topic.types) == 1 else b""
        by_key = topic.key != "statistics id"
        self._starts = (f"{tenant}:".encode(), f"{tenant}|".encode()) if tenant and by_key else ()
        self._tenant = "" if by_key else tenant
        self._key = _test_of(key)

    def may_hold(self, fetched: Fetched) -> bool:
        """Whether *fetched* may be wanted, by its key and headers; one that cannot be read may be."""
        if self._starts and fetched.key is not None and not fetched.key.startswith(self._starts):
            return False
        if self._types:
            told = next((value for name, value in fetched.headers if name == "ce_type"), self._only_type)
            if told not in self._types:
                return False
        if self._key is None or fetched.key is None:
            return True
        return self._key(fetched.key.decode(errors="replace"))

    def holds(self, event: Event[Any]) -> bool:
        """Whether *event*, of a record that may be wanted, is."""
        if self._tenant and getattr(event.value, "tenant", None) != self._tenant:
            return False
        return not self._inner or (event.value is not None and _fact_type(event.value.event) in self._inner)


def _name(wanted: str | type[msgspec.Struct]) -> str:
    if isinstance(wanted, str):
        return wanted
    try:
        return ce_type(wanted)
    except KeyError:
        raise ConfigError(f"types: {wanted.__name__} is no type of pipeline.events") from None


def _check_types(topic: Topic, outer: set[str], inner: set[str]) -> None:
    problems = [
        f"types: {name!r} does not stand on {topic.name}{did_you_mean(name, dict.fromkeys(known))}; "
        f"allowed: {', '.join(known)}"
        for names, known in ((outer, topic.types), (inner, tuple(TYPES)))
        for name in sorted(names - set(known))
    ]
    if problems:
        raise ConfigError(problems)


def _fact_type(fact: Any) -> str:
    return fact.fact_type if isinstance(fact, UnknownFact) else ce_type(type(fact))


def _test_of(key: Keys | None) -> Callable[[str], bool] | None:
    if key is None or callable(key):
        return key
    wanted = frozenset((key,) if isinstance(key, str) else key)
    return wanted.__contains__
