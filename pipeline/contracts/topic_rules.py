"""What a topic promises beside its values, and what of it may change."""

from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import date

import msgspec

from pipeline.contracts.breaches import Breach, Rule
from pipeline.topics import Deprecation, Topic

__all__ = ["Promise", "compare", "ended", "of_topic", "reused", "two_majors"]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What those who read a topic build on."""

    visibility: str
    key: str
    partitioned_by: str
    cleanup: tuple[str, ...]
    types: tuple[str, ...]
    retention_ms: int | None = None
    partitions: int | None = None
    deprecated: Deprecation | None = None


Promises = Mapping[str, Promise]


def of_topic(topic: Topic) -> Promise:
    """What *topic* promises."""
    return Promise(
        visibility=topic.visibility,
        key=topic.key,
        partitioned_by=topic.partitioned_by,
        cleanup=topic.cleanup,
        types=topic.types,
        retention_ms=topic.retention_ms,
        partitions=topic.partitions,
        deprecated=topic.deprecated,
    )


def compare(old: Promises, new: Promises, over: Container[str] = ()) -> list[Breach]:
    """
    What of *old* topics *new* ones break.

    An internal topic may go, as nobody else reads it, and so may those that are *over*, see `ended`.
    """
    return sorted(
        breach
        for name, promise in old.items()
        if name in new or name not in over
        for breach in _topic(name, promise, new.get(name))
    )


def ended(releases: Iterable[Promises], today: date) -> dict[str, Deprecation]:
    """The topics that a release announced the end of, and the last one that has them says it is past."""
    last = {name: promise for topics in releases for name, promise in topics.items()}
    told = {name: promise.deprecated for name, promise in last.items() if promise.deprecated}
    return {name: end for name, end in told.items() if date.fromisoformat(end.until) < today}


def reused(releases: Iterable[Promises], current: Promises) -> list[Breach]:
    """Names of *current* topics that one of *releases*, oldest first, had and a later one did not."""
    before: set[str] = set()
    gone: set[str] = set()
    for topics in releases:
        gone |= before - topics.keys()
        before |= topics.keys()
    told = "the name stood for a topic of an older release, which a later one does not have"
    return [_breach(name, Rule.TOPIC_REUSED, told) for name in sorted(gone & current.keys())]


def two_majors(topics: Promises) -> list[Breach]:
    """Topics that hold two major versions of one type."""
    return [
        _breach(name, Rule.MAJOR_IN_PLACE, f"stands beside {', '.join(sorted(others))}", each)
        for name, promise in topics.items()
        for each in promise.types
        if (others := {other for other in promise.types if _is_older(other, each)})
    ]


def _topic(name: str, old: Promise, new: Promise | None) -> Iterator[Breach]:
    if new is None:
        if old.visibility == "public":
            yield _breach(name, Rule.TOPIC_REMOVED, _gone(old))
        return
    if old.key != new.key:
        yield _breach(name, Rule.KEY_CHANGED, f"was {old.key}, is {new.key}")
    yield from _partitioning(name, old, new)
    if set(old.cleanup) != set(new.cleanup):
        yield _breach(name, Rule.CLEANUP_CHANGED, f"was {','.join(old.cleanup)}, is {','.join(new.cleanup)}")
    yield from _types(name, old, new)
    if old.visibility == "public":
        yield from _public(name, old, new)


def _gone(old: Promise) -> str:
    return f"is gone, but was announced until {old.deprecated.until}" if old.deprecated else "is gone"


def _partitioning(name: str, old: Promise, new: Promise) -> Iterator[Breach]:
    if old.partitioned_by != new.partitioned_by:
        told = f"was by {old.partitioned_by}, is by {new.partitioned_by}"
        yield _breach(name, Rule.PARTITIONING_CHANGED, told)
    if old.partitions != new.partitions:
        told = f"partitions were {_count(old)}, are {_count(new)}"
        yield _breach(name, Rule.PARTITIONING_CHANGED, told)


def _count(promise: Promise) -> str:
    return "the profile's" if promise.partitions is None else str(promise.partitions)


def _types(name: str, old: Promise, new: Promise) -> Iterator[Breach]:
    for each in old.types:
        if each not in new.types:
            yield _breach(name, Rule.TYPE_REMOVED, "is gone", each)
    for each in new.types:
        others = [other for other in old.types if other not in new.types and _is_older(other, each)]
        if others and each not in old.types:
            yield _breach(name, Rule.MAJOR_IN_PLACE, f"takes the place of {', '.join(others)}", each)


def _public(name: str, old: Promise, new: Promise) -> Iterator[Breach]:
    if new.visibility != "public":
        yield _breach(name, Rule.VISIBILITY_REDUCED, f"was public, is {new.visibility}")
    if old.retention_ms is not None and new.retention_ms is not None and new.retention_ms < old.retention_ms:
        told = f"was {_days(old.retention_ms)}, is {_days(new.retention_ms)}"
        yield _breach(name, Rule.RETENTION_SHORTENED, told)

    if old.deprecated and new.deprecated and new.deprecated.until < old.deprecated.until:
        told = f"was announced until {old.deprecated.until}, is until {new.deprecated.until}"
        yield _breach(name, Rule.END_ADVANCED, told)


def _days(retention_ms: int) -> str:
    return f"{retention_ms / 86_400_000:g} d"


def _is_older(one: str, other: str) -> bool:
    """Whether the types *one* and *other* are the same but for their major version, and *one* is older."""
    (stem, _, major), (other_stem, _, other_major) = one.rpartition(".v"), other.rpartition(".v")
    return stem == other_stem != "" and int(major) < int(other_major)


def _breach(name: str, rule: Rule, told: str, path: str = "") -> Breach:
    return Breach(subject=name, path=path, rule=rule, told=told)
