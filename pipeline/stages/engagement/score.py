"""
The engagement score: ``100·(1 - e^(-S))`` with ``S = Σ weight·2^(-age/14 d)`` (DESIGN §4).

Adding floats depends on the order. So S is kept as one exact integer, as if every age were counted
from 1970 onwards: what happened at t contributes ``weight·2^(t/14 d)`` in units of 2^-40. What was
added can then be taken away without a trace, and S at any time is that sum divided by 2^(time/14 d).
"""

import math

__all__ = ["DELIVERED", "INBOUND", "REPLY", "contribution", "from_text", "score", "sum_at", "to_text"]

REPLY = 1.0
INBOUND = 0.7  #: an inbound message that is no reply
DELIVERED = 0.1

HALF_LIFE_MS = 14 * 86_400_000
UNIT_BITS = 40  #: 2^-40 is 10^-12: far below the six decimals that are published


def contribution(weight: float, at: int) -> int:
    """What *weight* at *at* (ms since 1970) adds to the sum."""
    halvings, rest = divmod(max(at, 0), HALF_LIFE_MS)
    return round(weight * 2 ** (rest / HALF_LIFE_MS + UNIT_BITS)) << halvings


def sum_at(total: int, at: int) -> float:
    """S at *at*, from the exact sum *total*."""
    halvings, rest = divmod(max(at, 0), HALF_LIFE_MS)
    # Dividing integers first keeps the quotient in a float's range, however large both are.
    return (total / (1 << (halvings + UNIT_BITS))) / 2 ** (rest / HALF_LIFE_MS)


def score(value: float) -> float:
    """The score, 0 to 100, that S = *value* comes to."""
    return -100 * math.expm1(-value)


def to_text(total: int) -> str:
    """*total* for a store: its hexadecimal digits and how many zero bits follow them; empty for 0."""
    if not total:
        return ""
    zeros = (total & -total).bit_length() - 1
    return f"{total >> zeros:x}p{zeros}"


def from_text(text: str) -> int:
    """The sum that `to_text` wrote."""
    if not text:
        return 0
    digits, _, zeros = text.partition("p")
    return int(digits, 16) << int(zeros)
