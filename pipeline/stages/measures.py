"""Arithmetic of `Measures`: exact, so that every order of additions ends equal."""

from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from pipeline import histogram
from pipeline.errors import RecordError
from pipeline.events import Measures, Ratios

__all__ = ["ZERO", "Delta", "decimal_text", "plain", "plus", "price", "ratios", "summed", "units"]

ZERO = Measures()

#: Names of the counting measures; ``cost`` and ``reply_seconds`` are added in ways of their own.
COUNTS = tuple(name for name in Measures.__struct_fields__ if name not in {"cost", "reply_seconds"})

#: Prices have digits within these powers of ten.
LARGEST, SMALLEST = 18, -18

#: Wide enough for 10^40 of the largest prices; what would not be exact raises.
EXACT = Context(prec=80, traps=[Inexact, Rounded, InvalidOperation])


class _Countable(Protocol):
    @property
    def __struct_fields__(self) -> tuple[str, ...]: ...


C = TypeVar("C", bound=_Countable)


class Delta:
    """What is to be added to some measures: counts by name, a cost in `units`, replies by bucket."""

    __slots__ = ("cost", "counts", "replies")

    def __init__(
        self, counts: dict[str, int] | None = None, cost: int = 0, bucket: int | None = None
    ) -> None:
        self.counts = counts.copy() if counts else {}
        self.cost = cost
        self.replies = {} if bucket is None else {str(bucket): 1}

    def add(self, other: "Delta", sign: int = 1) -> None:
        """Add *other*, or with *sign* -1 take it away."""
        counts = self.counts
        for name, count in other.counts.items():
            counts[name] = counts.get(name, 0) + sign * count
        if other.cost:
            self.cost += sign * other.cost
        if other.replies:
            for name, count in other.replies.items():
                self.replies[name] = self.replies.get(name, 0) + sign * count


def plus(values: C, delta: Delta) -> C:
    """*values*, any struct with fields named as those of `Measures`, with *delta* added."""
    changes: dict[str, object] = {
        name: getattr(values, name) + count for name, count in delta.counts.items() if count
    }
    if delta.cost:
        changes["cost"] = decimal_text(units(getattr(values, "cost")) + delta.cost)  # noqa: B009
    if delta.replies and hasattr(values, "reply_seconds"):
        changes["reply_seconds"] = histogram.merged(values.reply_seconds, delta.replies)
    return msgspec.structs.replace(values, **changes) if changes else values  # type: ignore[type-var]


def summed(total: Measures, new: Measures, old: Measures) -> Measures:
    """*total* with *new* in the place of *old*; *total* itself where nothing changes."""
    changes: dict[str, object] = {}
    for name in COUNTS:
        change = getattr(new, name) - getattr(old, name)
        if change:
            changes[name] = getattr(total, name) + change
    if new.cost != old.cost:
        changes["cost"] = decimal_text(units(total.cost) + units(new.cost) - units(old.cost))
    if new.reply_seconds != old.reply_seconds:
        less = {bucket: -count for bucket, count in old.reply_seconds.items()}
        added = histogram.merged(new.reply_seconds, less)
        changes["reply_seconds"] = histogram.merged(total.reply_seconds, added)
    return msgspec.structs.replace(total, **changes) if changes else total


def ratios(measures: Measures) -> Ratios:
    """The ratios of *measures*; null where the divisor is 0."""
    sent, messaged = measures.sent, measures.contacts_messaged
    return Ratios(
        delivery=round(measures.delivered / sent, 6) if sent else None,
        failure=round(measures.failed / sent, 6) if sent else None,
        reply=round(measures.repliers / messaged, 6) if messaged else None,
        opt_out=round(measures.opt_outs / messaged, 6) if messaged else None,
    )


@lru_cache(maxsize=4_096)
def price(text: str) -> int:
    """
    The price *text* in `units`.

    Raises:
        RecordError: it is no decimal, or has digits beyond 10^±18.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise RecordError("invalid-price", "the price is no decimal") from None
    if not value.is_finite() or value.adjusted() > LARGEST or int(value.as_tuple().exponent) < SMALLEST:
        raise RecordError("invalid-price", "the price has digits beyond 10^18 or 10^-18")
    return units(text)


@lru_cache(maxsize=4_096)
def plain(text: str) -> str:
    """The price *text* as `decimal_text` writes it."""
    return decimal_text(price(text))


@lru_cache(maxsize=16_384)
def units(text: str) -> int:
    """The decimal *text* as a whole number of 10^-18."""
    return int(EXACT.to_integral_exact(EXACT.scaleb(Decimal(text), -SMALLEST)))


def decimal_text(amount: int) -> str:
    """*amount* `units` as a decimal without exponent and trailing zeros; 0 has no sign."""
    sign, digits = "-" if amount < 0 else "", f"{abs(amount):0{1 - SMALLEST}d}"
    return f"{sign}{digits[:SMALLEST]}.{digits[SMALLEST:]}".rstrip("0").rstrip(".")
