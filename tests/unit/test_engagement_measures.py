"""Exact arithmetic of measures, and the ratios made from them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.events import Measures, Ratios
from pipeline.stages.measures import ZERO, amount, decimal_text, plus, price, ratios, summed, units

PRICES = st.decimals(-(10**6), 10**6, places=6)


def measures(number: int, cost: Decimal) -> Measures:
    """Some measures."""
    return Measures(
        sent=number, repliers=2 * number, cost=decimal_text(units(str(cost))), reply_seconds={str(number): 1}
    )


@given(st.lists(st.tuples(st.integers(0, 9), PRICES), max_size=8))
def test_what_is_added_can_be_taken_away(parts: list[tuple[int, Decimal]]) -> None:
    """Adding in one order and taking away in another leaves exactly nothing."""
    total = ZERO
    for part in parts:
        total = summed(total, measures(*part), ZERO)
    for part in sorted(parts):
        total = summed(total, ZERO, measures(*part))
    assert total == ZERO


@given(st.lists(PRICES, max_size=8))
def test_costs_add_up_exactly(prices: list[Decimal]) -> None:
    """The cost is the decimal sum, without exponent or trailing zeros."""
    total = ZERO
    for one in prices:
        total = plus(total, amount(price(str(one))))
    assert Decimal(total.cost) == sum(prices)
    assert "E" not in total.cost
    assert not ("." in total.cost and total.cost.endswith("0"))


COUNTED = {"sent": st.integers(-9, 9), "repliers": st.integers(-9, 9), "contacts_engaged": st.integers(-9, 9)}


@given(st.lists(st.tuples(st.fixed_dictionaries(COUNTED), PRICES), max_size=8))
def test_amounts_add_up_count_by_count(facts: list[tuple[dict[str, int], Decimal]]) -> None:
    """No count borrows from another or from the cost, below zero neither, in whatever order."""
    added = sum(amount(price(str(cost)), **counts) for counts, cost in facts)
    total = plus(ZERO, added)
    for name in COUNTED:
        assert getattr(total, name) == sum(counts[name] for counts, _ in facts)
    assert Decimal(total.cost) == sum(cost for _, cost in facts)
    assert plus(total, -added) == ZERO


@pytest.mark.parametrize(
    ("text", "written"),
    [("0.0750", "0.075"), ("1E+3", "1000"), ("-0.0", "0"), ("100", "100"), ("0E-9", "0"), ("-1.50", "-1.5")],
)
def test_decimals_are_written_plainly(text: str, written: str) -> None:
    """No exponent, no trailing zeros, no sign on zero."""
    assert decimal_text(price(text)) == written


@pytest.mark.parametrize("text", ["", "free", "NaN", "Infinity", "1E+19", "1E-19", "1" * 40])
def test_what_is_no_price_is_refused(text: str) -> None:
    """A price that could not be added exactly is a record error that does not repeat it."""
    with pytest.raises(RecordError, match="the price") as caught:
        price(text)
    assert caught.value.reason == "invalid-price"


def test_a_ratio_of_nothing_is_null() -> None:
    """0/0 is null, for each ratio."""
    assert ratios(ZERO) == Ratios(delivery=None, failure=None, reply=None, opt_out=None)


def test_ratios_divide_by_what_was_sent_and_whom() -> None:
    """Delivery and failure are of messages, reply and opt-out of contacts, to six decimals."""
    counted = Measures(sent=3, delivered=2, failed=1, contacts_messaged=8, repliers=1, replies=5, opt_outs=2)
    assert ratios(counted) == Ratios(delivery=0.666667, failure=0.333333, reply=0.125, opt_out=0.25)
