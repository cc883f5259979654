"""
What goes wrong on purpose: rules per operation, drawn from a seeded generator, switchable while running.

An operation is the vendor's ``operationId`` (``contacts.fetchAll``, ``get-tags-location-id``), for webhooks
``sakari.deliver`` or ``users.deliver``; a rule's ``operation`` may be a pattern (``contacts.*``, ``*``).
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

__all__ = ["ANSWER_KINDS", "DELIVERY_KINDS", "FaultKind", "FaultRule", "Faults"]


class FaultKind(StrEnum):
    """Each way to go wrong."""

    LATENCY = "latency"  #: answer ``delay_s`` late
    THROTTLED = "throttled"  #: 429; with headers where ``headers`` is true
    SERVER_ERROR = "server_error"  #: ``status``, an HTML page as proxies send it
    RESET = "reset"  #: the connection is cut without an answer
    TRUNCATED = "truncated"  #: half of the JSON, with a fitting Content-Length
    INVALID_JSON = "invalid_json"  #: 200 with an HTML page that claims to be JSON
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - a kind of fault
    REVOKED_TOKEN = "revoked_token"  # noqa: S105 - a kind of fault: its refresh token dies as well
    LOST = "lost"  #: the webhook is never sent
    DUPLICATED = "duplicated"  #: sent again, ``delay_s`` later
    DELAYED = "delayed"  #: sent ``delay_s`` late; others overtake it
    REORDERED = "reordered"  #: sent after the next webhook of the same contact, at most ``delay_s`` late


DELIVERY_KINDS: Final = frozenset(
    {FaultKind.LOST, FaultKind.DUPLICATED, FaultKind.DELAYED, FaultKind.REORDERED}
)
ANSWER_KINDS: Final = frozenset(FaultKind) - DELIVERY_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One fault; without ``next_calls`` it stays until it is removed."""

    kind: FaultKind
    operation: str = "*"
    probability: float = 1.0
    next_calls: int | None = None  #: gone after it has struck so often
    delay_s: float = 1.0
    status: int = 503
    headers: bool = True  #: of a 429: Retry-After and the vendor's rate headers
    retry_after_s: int = 1
    after_effect: bool = False  #: the operation takes effect first (server_error, reset)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability {self.probability} is not within 0 and 1")
        if self.delay_s < 0 or (self.next_calls is not None and self.next_calls < 1):
            raise ValueError("delay_s must not be negative, next_calls must be at least 1")
        if not 500 <= self.status <= 599:
            raise ValueError(f"status {self.status} is no server error (500 to 599)")

    @classmethod
    def from_json(cls, given: object) -> "FaultRule":
        """
        The rule that a JSON object describes, with this class's field names.

        Raises:
            ValueError: a field is unknown, a value is of another type or out of range.
        """
        if not isinstance(given, Mapping):
            raise ValueError('a fault is a JSON object, such as {"kind": "latency"}')  # noqa: TRY004
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"unknown fields {', '.join(unknown)}; known are {', '.join(known)}")
        if "kind" not in given:
            raise ValueError(f"kind is missing; it is one of {', '.join(FaultKind)}")
        try:
            return cls(**{**given, "kind": FaultKind(given["kind"])})
        except TypeError as error:
            raise ValueError(f"a value has a wrong type: {error}") from error


class Faults:
    """The rules in force. The same *seed*, rules and calls strike the same calls."""

    def __init__(self, rules: Iterable[FaultRule] = (), *, seed: int = 0) -> None:
        self._random = random.Random(f"faults {seed}")
        self._rules: dict[int, FaultRule] = {}
        self._next_id = 1
        self.struck: dict[str, int] = {}  #: how often, by kind
        for rule in rules:
            self.put(rule)

    def put(self, rule: FaultRule) -> int:
        """Switch *rule* on; returns the id to switch it off with."""
        identity = self._next_id
        self._next_id += 1
        self._rules[identity] = rule
        return identity

    def remove(self, identity: int) -> bool:
        """Switch one rule off; false where there is no such rule."""
        return self._rules.pop(identity, None) is not None

    def clear(self) -> None:
        """Switch everything off."""
        self._rules.clear()

    def listed(self) -> list[dict[str, Any]]:
        """The rules as JSON objects with their ``id``."""
        return [{"id": identity, **asdict(rule)} for identity, rule in self._rules.items()]

    def strike(self, operation: str, kinds: frozenset[FaultKind]) -> tuple[FaultRule, ...]:
        """The rules of these *kinds* that hit this call of *operation*, in the order they were put."""
        hits = []
        for identity, rule in list(self._rules.items()):
            if rule.kind in kinds and fnmatchcase(operation, rule.operation) and self._hits(rule):
                self._count(identity, rule)
                hits.append(rule)
        return tuple(hits)

    def _hits(self, rule: FaultRule) -> bool:
        return rule.probability >= 1 or self._random.random() < rule.probability

    def _count(self, identity: int, rule: FaultRule) -> None:
        self.struck[rule.kind] = self.struck.get(rule.kind, 0) + 1
        if rule.next_calls is None:
            return
        if rule.next_calls == 1:
            del self._rules[identity]
        else:
            self._rules[identity] = replace(rule, next_calls=rule.next_calls - 1)
