"""Arithmetic of `Measures`: exact, so that every order of additions ends equal."""

from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded
from typing import Protocol, TypeVar

import msgspec

from pipeline import histogram
from pipeline.errors import RecordError
from pipeline.events import Measures, Ratios

__all__ = ["ZERO", "Delta", "combined", "decimal_text", "plus", "price", "ratios"]

ZERO = Measures()

#: Names of the counting measures; ``cost`` and ``reply_seconds`` are added in ways of their own.
COUNTS = tuple(name for name in Measures.__struct_fields__ if name not in {"cost", "reply_seconds"})

#: Prices within these powers of ten add up exactly under `EXACT`, up to 10^40 of them.
LARGEST, SMALLEST = 18, -18
EXACT = Context(prec=80, traps=[Inexact, Rounded, InvalidOperation])


NOTHING = Decimal(0)


class _Countable(Protocol):
    @property
    def __struct_fields__(self) -> tuple[str, ...]: ...


C = TypeVar("C", bound=_Countable)


class Delta:
    """What is to be added to some measures: counts by name, a cost, replies by bucket."""

    __slots__ = ("cost", "counts", "replies")

    def __init__(
        self, counts: dict[str, int] | None = None, cost: Decimal = NOTHING, bucket: int | None = None
    ) -> None:
        self.counts = counts.copy() if counts else {}
        self.cost = cost
        self.replies = {} if bucket is None else {str(bucket): 1}

    def add(self, other: "Delta", sign: int = 1) -> None:
        """Add *other*, or with *sign* -1 take it away."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + sign * count
        for name, count in other.replies.items():
            self.replies[name] = self.replies.get(name, 0) + sign * count
        if other.cost:
            self.cost = EXACT.add(self.cost, sign * other.cost)


def plus(values: C, delta: Delta, besides: Mapping[str, int] | None = None) -> C:
    """*values*, any struct with fields named as those of `Measures`, with *delta* and *besides* added."""
    counts = {**delta.counts, **besides} if besides else delta.counts
    changes: dict[str, object] = {
        name: getattr(values, name) + count for name, count in counts.items() if count
    }
    if delta.cost:
        changes["cost"] = decimal_text(EXACT.add(Decimal(getattr(values, "cost")), delta.cost))  # noqa: B009
    if delta.replies and hasattr(values, "reply_seconds"):
        changes["reply_seconds"] = histogram.merged(values.reply_seconds, delta.replies)
    return _replaced(values, changes) if changes else values


def combined(one: Measures, other: Measures, sign: int = 1) -> Measures:
    """The sum of *one* and *other*, or with *sign* -1 their difference."""
    delta = Delta({name: getattr(other, name) for name in COUNTS}, Decimal(other.cost))
    delta.replies = other.reply_seconds
    total = Delta()
    total.add(delta, sign)
    return plus(one, total)


def ratios(measures: Measures) -> Ratios:
    """The ratios of *measures*; null where the divisor is 0."""
    return Ratios(
        delivery=_ratio(measures.delivered, measures.sent),
        failure=_ratio(measures.failed, measures.sent),
        reply=_ratio(measures.repliers, measures.contacts_messaged),
        opt_out=_ratio(measures.opt_outs, measures.contacts_messaged),
    )


def price(text: str) -> Decimal:
    """
    The price *text*.

    Raises:
        RecordError: it is no decimal, or has digits beyond 10^±18.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise RecordError("invalid-price", "the price is no decimal") from None
    if not value.is_finite() or value.adjusted() > LARGEST or int(value.as_tuple().exponent) < SMALLEST:
        raise RecordError("invalid-price", "the price has digits beyond 10^18 or 10^-18")
    return value


def decimal_text(value: Decimal) -> str:
    """*value* without exponent and trailing zeros; 0 has no sign."""
    return format(EXACT.normalize(value), "f") if value else "0"


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _replaced(values: C, changes: dict[str, object]) -> C:
    return msgspec.structs.replace(values, **changes)  # type: ignore[type-var]
