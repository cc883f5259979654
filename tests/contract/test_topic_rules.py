"""Which changes of a topic its readers can live with, and names that are never used again."""

from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.contracts.breaches import Rule
from pipeline.contracts.topic_rules import Promise, compare, of_topic, reused, two_majors
from pipeline.topics import Deprecation, load

DAY = 86_400_000
PUBLIC = Promise(
    visibility="public",
    key="contact key",
    partitioned_by="key",
    cleanup=("delete",),
    types=("a.made.v1", "a.gone.v1"),
    retention_ms=90 * DAY,
)
TABLE = replace(PUBLIC, cleanup=("compact",), retention_ms=None)
BOTH = replace(PUBLIC, cleanup=("compact", "delete"))
INTERNAL = replace(PUBLIC, visibility="internal")
RAW = replace(PUBLIC, types=("raw",))

#: What changes -> the topic before, the fields that change (None: it is gone), place and rule of each breach.
CASES: dict[str, tuple[Promise, dict[str, Any] | None, set[tuple[str, str]]]] = {
    "nothing": (PUBLIC, {}, set()),
    "kept longer": (PUBLIC, {"retention_ms": 91 * DAY}, set()),
    "a type more": (PUBLIC, {"types": (*PUBLIC.types, "a.told.v1")}, set()),
    "another type's second version": (PUBLIC, {"types": (*PUBLIC.types, "b.made.v2")}, set()),
    "the order of types": (PUBLIC, {"types": PUBLIC.types[::-1]}, set()),
    "the order of cleanup": (BOTH, {"cleanup": ("delete", "compact")}, set()),
    "an internal one for all": (INTERNAL, {"visibility": "public"}, set()),
    "an internal one gone": (INTERNAL, None, set()),
    "an internal one kept shorter": (INTERNAL, {"retention_ms": DAY}, set()),
    "gone": (PUBLIC, None, {("", "topic-removed")}),
    "a table gone": (TABLE, None, {("", "topic-removed")}),
    "another key": (PUBLIC, {"key": "tenant:tag id"}, {("", "key-changed")}),
    "another key of an internal one": (INTERNAL, {"key": "x"}, {("", "key-changed")}),
    "partitioned by a prefix": (PUBLIC, {"partitioned_by": "prefix"}, {("", "partitioning-changed")}),
    "a count of its own": (PUBLIC, {"partitions": 3}, {("", "partitioning-changed")}),
    "a table from now on": (
        PUBLIC,
        {"cleanup": ("compact",), "retention_ms": None},
        {("", "cleanup-changed")},
    ),
    "a table that forgets": (
        TABLE,
        {"cleanup": ("compact", "delete"), "retention_ms": DAY},
        {("", "cleanup-changed")},
    ),
    "no table any more": (BOTH, {"cleanup": ("delete",)}, {("", "cleanup-changed")}),
    "kept shorter": (PUBLIC, {"retention_ms": 89 * DAY}, {("", "retention-shortened")}),
    "a table kept shorter": (BOTH, {"retention_ms": DAY}, {("", "retention-shortened")}),
    "its end brought forward": (
        replace(PUBLIC, deprecated=Deprecation(until="2030-12-31", instead="u")),
        {"deprecated": Deprecation(until="2030-11-30", instead="u")},
        {("", "end-advanced")},
    ),
    "its end announced": (PUBLIC, {"deprecated": Deprecation(until="2030-12-31", instead="u")}, set()),
    "internal from now on": (PUBLIC, {"visibility": "internal"}, {("", "visibility-reduced")}),
    "a type less": (PUBLIC, {"types": ("a.made.v1",)}, {("a.gone.v1", "type-removed")}),
    "a type less on an internal one": (
        INTERNAL,
        {"types": ("a.made.v1",)},
        {("a.gone.v1", "type-removed")},
    ),
    "types for raw bytes": (RAW, {"types": ("a.made.v1",)}, {("raw", "type-removed")}),
    "a second version in place": (
        PUBLIC,
        {"types": ("a.made.v2", "a.gone.v1")},
        {("a.made.v1", "type-removed"), ("a.made.v2", "major-in-place")},
    ),
    "a tenth version in place of the ninth": (
        replace(PUBLIC, types=("a.v9",)),
        {"types": ("a.v10",)},
        {("a.v9", "type-removed"), ("a.v10", "major-in-place")},
    ),
    "a second version beside the first": (
        PUBLIC,
        {"types": (*PUBLIC.types, "a.made.v2")},
        {("a.made.v2", "major-in-place")},
    ),
    "much at once": (
        PUBLIC,
        {"key": "x", "retention_ms": DAY, "types": ("a.made.v1",)},
        {("", "key-changed"), ("", "retention-shortened"), ("a.gone.v1", "type-removed")},
    ),
}


@pytest.mark.parametrize("change", CASES)
def test_a_change_has_its_verdict(change: str) -> None:
    """Exactly these rules, whatever else changes."""
    old, changes, expected = CASES[change]
    new = {} if changes is None else {"t": replace(old, **changes)}
    found = [*compare({"t": old}, new), *two_majors(new)]
    assert {(breach.path, breach.rule.value) for breach in found} == expected
    assert {breach.subject for breach in found} <= {"t"}


def test_the_table_has_every_rule_of_a_topic() -> None:
    """Each rule is broken at least once."""
    rules = list(Rule)
    of_topics = {rule.value for rule in rules[rules.index(Rule.TYPE_REMOVED) :]} - {"topic-reused"}
    assert {rule for _, _, expected in CASES.values() for _, rule in expected} == of_topics


def test_a_new_topic_is_no_breach() -> None:
    """Also with a new major version of a type that stands on another topic."""
    new = {"t": PUBLIC, "t2": replace(PUBLIC, types=("a.made.v2",))}
    assert compare({"t": PUBLIC}, new) == two_majors(new) == []


@pytest.mark.parametrize(
    ("releases", "now", "expected"),
    [
        ([["a"]], ["a", "b"], []),
        ([["a", "b"], ["b"]], ["b"], []),
        ([["a", "b"], ["b"], ["b"]], ["a", "b"], ["a"]),
    ],
)
def test_a_topics_name_never_comes_back(
    releases: list[list[str]], now: list[str], expected: list[str]
) -> None:
    """What was read from it once would be taken for what is on it now."""
    found = reused([dict.fromkeys(each, PUBLIC) for each in releases], dict.fromkeys(now, PUBLIC))
    assert [(breach.subject, breach.rule) for breach in found] == [(n, Rule.TOPIC_REUSED) for n in expected]


def test_a_promise_has_all_that_the_rules_look_at() -> None:
    """What topics.yaml says of a topic is what is compared."""
    topic = load()["sakari.contacts"]
    promise = of_topic(topic)
    assert {name: getattr(topic, name) for name in Promise.__struct_fields__} == {
        name: getattr(promise, name) for name in Promise.__struct_fields__
    }
    assert promise.partitioned_by == "prefix"
