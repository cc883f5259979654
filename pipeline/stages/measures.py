"""
Arithmetic of `Measures`: exact, so that every order of additions ends equal.

What a fact adds is an *amount*: all counts and the cost in one integer, 64 bits for each count and the cost
above them. So adding up takes one addition, whatever is counted, and taking away one subtraction.
"""

from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from pipeline import histogram
from pipeline.errors import RecordError
from pipeline.events import Measures, Ratios

__all__ = [
    "GATHER_S",
    "NO_SUMS",
    "ZERO",
    "Sums",
    "amount",
    "decimal_text",
    "increased",
    "plain",
    "plus",
    "price",
    "ratios",
    "summed",
    "units",
    "written",
]

#: How long the stages that add measures up gather before they commit: whoever reads metrics reads sums.
GATHER_S = 0.5

ZERO = Measures()

#: Names of the counting measures; ``cost`` and ``reply_seconds`` are added in ways of their own.
COUNTS = tuple(name for name in Measures.__struct_fields__ if name not in {"cost", "reply_seconds"})

#: Prices have digits within these powers of ten.
LARGEST, SMALLEST = 18, -18

#: Wide enough for 10^40 of the largest prices; what would not be exact raises.
EXACT = Context(prec=80, traps=[Inexact, Rounded, InvalidOperation])


C = TypeVar("C", bound=msgspec.Struct)
M = TypeVar("M", bound=Measures)

#: Counts in their order, then the cost; each count is a signed integer of 64 bits.
LANES = Struct(f"<{len(COUNTS)}q")
COST_AT = 64 * len(COUNTS)
BELOW_COST = (1 << COST_AT) - 1
LIFT = sum(1 << 64 * lane + 63 for lane in range(len(COUNTS)))


class Sums(Measures, frozen=True, array_like=True, gc=False):
    """`Measures` as stores keep them: without the names, a tenth of the bytes."""


NO_SUMS: Final = Sums()


def written(values: Measures, kind: type[M]) -> M:
    """*values* as *kind*: as topics carry them, or as stores keep them."""
    return kind(
        sent=values.sent,
        delivered=values.delivered,
        failed=values.failed,
        segments=values.segments,
        cost=values.cost,
        contacts_messaged=values.contacts_messaged,
        replies=values.replies,
        repliers=values.repliers,
        reply_seconds=values.reply_seconds,
        received=values.received,
        opt_outs=values.opt_outs,
        opt_ins=values.opt_ins,
        conversations_started=values.conversations_started,
        conversations_closed=values.conversations_closed,
        contacts_engaged=values.contacts_engaged,
    )


def amount(cost: int = 0, **counts: int) -> int:
    """*counts* by the names of measures, and a *cost* in `units`, as one integer; see the module."""
    return sum(count << 64 * COUNTS.index(name) for name, count in counts.items()) + (cost << COST_AT)


def parts(total: int) -> tuple[tuple[int, ...], int]:
    """The counts that the amount *total* holds, in the order of `COUNTS`, and its cost in `units`."""
    lifted = total + LIFT  # no count is below 0 now, so none borrows from the next; then each is as before
    counts = ((lifted & BELOW_COST) ^ LIFT).to_bytes(COST_AT // 8, "little")
    return LANES.unpack(counts), lifted >> COST_AT


def plus(values: C, added: int, replies: Mapping[str, int] | None = None) -> C:
    """*values*, any struct with fields named as those of `Measures`, with what is *added*."""
    changes = increased(values, added)
    if replies:
        changes["reply_seconds"] = histogram.merged(getattr(values, "reply_seconds"), replies)  # noqa: B009
    return replace(values, **changes) if changes else values


def increased(values: object, added: int) -> dict[str, Any]:
    """Those fields of *values*, named as those of `Measures`, that are others once the amount is *added*."""
    counts, cost = parts(added)
    changes: dict[str, Any] = {
        name: getattr(values, name) + count for name, count in zip(COUNTS, counts, strict=True) if count
    }
    if cost:
        changes["cost"] = decimal_text(units(getattr(values, "cost")) + cost)  # noqa: B009
    return changes


def summed(total: M, new: Measures, old: Measures) -> M:
    """*total* with *new* in the place of *old*; *total* itself where nothing changes."""
    changes: dict[str, Any] = {
        name: before + now - then
        for name, before, now, then in zip(COUNTS, _counts(total), _counts(new), _counts(old), strict=True)
        if now != then
    }
    if new.cost != old.cost:
        changes["cost"] = decimal_text(units(total.cost) + units(new.cost) - units(old.cost))
    if new.reply_seconds != old.reply_seconds:
        now, then = new.reply_seconds, old.reply_seconds
        more = {bucket: now.get(bucket, 0) - then.get(bucket, 0) for bucket in now | then}
        changes["reply_seconds"] = histogram.merged(total.reply_seconds, more)
    return replace(total, **changes) if changes else total


_counts: Callable[[Measures], tuple[int, ...]] = attrgetter(*COUNTS)


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
    return int(EXACT.to_integral_exact(EXACT.scaleb(value, -SMALLEST)))


@lru_cache(maxsize=4_096)
def plain(text: str) -> str:
    """The price *text* as `decimal_text` writes it."""
    return decimal_text(price(text))


def units(text: str) -> int:
    """The decimal *text*, written as `decimal_text` does, as a whole number of 10^-18."""
    whole, _, part = text.partition(".")
    return int(f"{whole}{part:0<{-SMALLEST}}")


def decimal_text(amount: int) -> str:
    """*amount* `units` as a decimal without exponent and trailing zeros; 0 has no sign."""
    sign, digits = "-" if amount < 0 else "", f"{abs(amount):0{1 - SMALLEST}d}"
    return f"{sign}{digits[:SMALLEST]}.{digits[SMALLEST:]}".rstrip("0").rstrip(".")
