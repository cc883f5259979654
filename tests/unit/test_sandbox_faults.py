"""Faults: which calls a rule strikes, and what is no rule."""

import pytest

from pipeline.sandbox.faults import ANSWER_KINDS, DELIVERY_KINDS, FaultKind, FaultRule, Faults


def test_a_rule_strikes_its_operations_only() -> None:
    """A pattern selects operations; kinds that are not asked for are left alone."""
    faults = Faults([FaultRule(kind=FaultKind.LATENCY, operation="contacts.*")])
    assert faults.strike("contacts.fetch", ANSWER_KINDS)
    assert not faults.strike("messages.fetch", ANSWER_KINDS)
    assert not faults.strike("contacts.fetch", DELIVERY_KINDS)


def test_a_rule_for_the_next_calls_ends() -> None:
    """After next_calls strikes the rule is gone."""
    faults = Faults([FaultRule(kind=FaultKind.RESET, next_calls=2)])
    assert [bool(faults.strike("any", ANSWER_KINDS)) for _ in range(3)] == [True, True, False]
    assert faults.listed() == []
    assert faults.struck == {"reset": 2}


def test_the_same_seed_strikes_the_same_calls() -> None:
    """A probability is drawn from the seed: equal seeds agree call by call."""
    drawn = []
    for _ in range(2):
        faults = Faults([FaultRule(kind=FaultKind.LOST, probability=0.3)], seed=5)
        drawn.append([bool(faults.strike("sakari.deliver", DELIVERY_KINDS)) for _ in range(200)])
    assert drawn[0] == drawn[1]
    assert 30 < sum(drawn[0]) < 90


def test_a_removed_rule_strikes_no_more() -> None:
    """One rule is taken by remove, all by clear."""
    faults = Faults()
    first, _ = (faults.put(FaultRule(kind=kind)) for kind in (FaultKind.RESET, FaultKind.LATENCY))
    assert faults.remove(first)
    assert not faults.remove(first)
    assert [rule["kind"] for rule in faults.listed()] == ["latency"]
    faults.clear()
    assert faults.listed() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "JSON object"),
        ({}, "kind is missing"),
        ({"kind": "fire"}, "fire"),
        ({"kind": "reset", "colour": 1}, "unknown fields colour"),
        ({"kind": "reset", "probability": 2}, "probability 2"),
        ({"kind": "reset", "probability": "x"}, "wrong type"),
        ({"kind": "reset", "next_calls": 0}, "next_calls"),
        ({"kind": "server_error", "status": 404}, "server error"),
    ],
)
def test_what_is_no_rule_is_refused(given: object, said: str) -> None:
    """A wrong description is refused with what is wrong."""
    with pytest.raises(ValueError, match=said):
        FaultRule.from_json(given)
