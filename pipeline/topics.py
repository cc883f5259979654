"""
``topics.yaml`` as values: every topic, what may stand on it, how it is partitioned, kept and read.

`load` reads the file once and tells every problem with file, line and what is allowed. Besides the
entries of the file, `Topics` holds ``<stage>.redrive`` of each stage and sink, so that whatever a task
reads or writes under a name of its own is looked up in one place. Changelogs, whose names depend on
the application id, are described by `Topics.changelogs`.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, final

import msgspec

from pipeline.checked_yaml import (
    Entry,
    Field,
    Findings,
    compose,
    day,
    did_you_mean,
    duration_ms,
    entries,
    listed,
    mapping,
    names_in,
    one_of,
    text,
    whole_number,
)
from pipeline.errors import ConfigError
from pipeline.events import TYPES
from pipeline.events.personal import direct

__all__ = [
    "Changelogs",
    "Deprecation",
    "PartitionedBy",
    "Profile",
    "Service",
    "Topic",
    "Topics",
    "load",
    "path",
]

PartitionedBy = Literal["key", "prefix", "every", "explicit"]

_CLEANUPS = {"delete": ("delete",), "compact": ("compact",), "compact,delete": ("compact", "delete")}


@final
class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of one kind of cluster, for topics that do not give their own."""

    name: str
    partitions: int
    replication: int
    min_insync_replicas: int
    segment_bytes: int  #: size at which a segment of a compacted topic is closed
    segment_ms: int  #: age at which it is closed


@final
class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What all public topics promise beside their own entries, and whom to ask."""

    freshness_ms: int  #: 99 of 100 live records are on their topic so long after they were received
    support: str


@final
class Deprecation(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that is written until a day, UTC, and can go after it."""

    until: str  #: ``YYYY-MM-DD``, the last day
    instead: str  #: the topic to read


@final
class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic: the contract with those who read it."""

    name: str
    description: str
    owner: str
    visibility: Literal["public", "internal"]
    key: str  #: what a record's key is, in words
    partitioned_by: PartitionedBy = "key"
    types: tuple[str, ...]  #: the ce_types that may stand here; ``("raw",)``: bytes as they came
    cleanup: tuple[str, ...]  #: of ``delete`` and ``compact``
    retention_ms: int | None = None  #: None: records are kept as long as they are the last of their key
    partitions: int | None = None  #: None: the profile's
    read: Literal["partition", "whole"] = "partition"  #: whole: each consumer reads all partitions
    personal: tuple[str, ...] = ()  #: dotted paths of value fields that tell of a person; * for all
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    deprecated: Deprecation | None = None

    @property
    def is_table(self) -> bool:
        """Whether the last record of a key is its state and a null value its removal."""
        return "compact" in self.cleanup

    @property
    def by_prefix(self) -> bool:
        """Whether the key up to its last ``|`` decides the partition."""
        return self.partitioned_by == "prefix"


@final
class Changelogs(msgspec.Struct, frozen=True, kw_only=True):
    """How the compacted topics behind the stores are kept; each has its stage's partition count."""

    cleanup: tuple[str, ...]
    delete_retention_ms: int

    def name(self, application_id: str, stage: str, store: str) -> str:
        """``<application id>.<stage>.<store>.changelog``."""
        return f"{application_id}.{stage}.{store}.changelog"


_COMMON = Service(freshness_ms=60_000, support="its owner")


@final
class Topics(Mapping[str, Topic]):
    """All topics by name, redrive topics included, in the order of the file."""

    def __init__(
        self,
        topics: Iterable[Topic],
        profiles: Iterable[Profile],
        changelogs: Changelogs,
        service: Service = _COMMON,
    ) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self.profiles = {profile.name: profile for profile in profiles}
        self.changelogs = changelogs
        self.service = service

    def __getitem__(self, name: str) -> Topic:
        return self._topics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._topics)

    def __len__(self) -> int:
        return len(self._topics)

    def profile(self, name: str) -> Profile:
        """
        The sizes under *name*.

        Raises:
            ConfigError: there is no such profile.
        """
        if name not in self.profiles:
            guess = did_you_mean(name, self.profiles)
            raise ConfigError(f"unknown profile {name!r}{guess}; allowed: {' | '.join(self.profiles)}")
        return self.profiles[name]

    def redrive(self, stage: str) -> Topic:
        """
        The topic that puts dead letters back to *stage*, which may be a sink.

        Raises:
            ConfigError: it has none.
        """
        name = f"{stage}.redrive"
        if name not in self._topics:
            raise ConfigError(f"{stage} has no redrive topic; add it to redrive.stages in topics.yaml")
        return self._topics[name]

    def partitions(self, name: str, profile: Profile) -> int:
        """How many partitions topic *name* has under *profile*."""
        return self._topics[name].partitions or profile.partitions

    def inputs(self, consumer: str) -> tuple[Topic, ...]:
        """What *consumer* reads partition by partition, redrive included: these share one partition count."""
        return tuple(t for t in self._topics.values() if consumer in t.consumers and t.read == "partition")


def path() -> Path:
    """Where ``topics.yaml`` stands: in the installed package, else at the root of the repository."""
    packaged = Path(__file__).with_name("topics.yaml")
    return packaged if packaged.exists() else Path(__file__).parent.parent / "topics.yaml"


def load(file: Path | None = None) -> Topics:
    """
    Read *file*, by default the project's own ``topics.yaml``.

    Raises:
        ConfigError: anything is wrong; all problems at once, each as ``file:line: where: what; allowed: …``.
    """
    file = file or path()
    try:
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8: {error.reason}") from error
    return _parsed(source, file.name)


@lru_cache(maxsize=8)
def _parsed(source: str, file: str) -> Topics:
    findings = Findings(file)
    read = _FILE(findings, compose(source, file), "")
    listed_topics = read["topics"] or ()
    _check_names(findings, listed_topics)
    for entry in listed_topics:
        _check_topic(findings, entry)
    _check_profiles(findings, read["profiles"] or {})
    _check_sharing(findings, listed_topics)
    _check_deprecated(findings, listed_topics)
    findings.stop_if_any()
    topics = [_topic(entry.value) for entry in listed_topics] + _redrive(read["redrive"])
    profiles = [_profile(name, entry.value) for name, entry in read["profiles"].items()]
    return Topics(topics, profiles, _changelogs(read["changelogs"]), _service(read["service"]))


# ---------------------------------------------------------------- the file's fields

_NAME = text(r"^[a-z0-9][a-z0-9.-]{0,199}$", "1–200 of a–z, 0–9, . and -, beginning with a letter or digit")
_WORD = text(r"^[a-z0-9][a-z0-9-]*$", "a–z, 0–9 and -")
_CLEANUP = one_of(*_CLEANUPS)
_COUNT = whole_number(1, 1000)

_TOPIC = mapping(
    {
        "name": Field(_NAME),
        "description": Field(text()),
        "owner": Field(text()),
        "visibility": Field(one_of("public", "internal")),
        "key": Field(text()),
        "partitioned_by": Field(one_of("key", "prefix", "every", "explicit"), required=False, default="key"),
        "types": Field(listed(text(), minimum=1)),
        "cleanup": Field(_CLEANUP),
        "retention": Field(duration_ms, required=False),
        "partitions": Field(_COUNT, required=False),
        "read": Field(one_of("partition", "whole"), required=False, default="partition"),
        "personal": Field(listed(text()), required=False, default=()),
        "producers": Field(listed(_WORD), required=False, default=()),
        "consumers": Field(listed(_WORD), required=False, default=()),
        "deprecated": Field(mapping({"until": Field(day), "instead": Field(_NAME)}), required=False),
    }
)
_SEGMENT = mapping({"megabytes": Field(whole_number(1, 1024)), "after": Field(duration_ms)})
_PROFILE = mapping(
    {
        "partitions": Field(_COUNT),
        "replication": Field(whole_number(1, 9)),
        "min_insync_replicas": Field(whole_number(1, 9)),
        "compacted_segment": Field(_SEGMENT),
    }
)
_REDRIVE = mapping(
    {
        "stages": Field(listed(_WORD)),
        "description": Field(text()),
        "cleanup": Field(one_of("delete")),
        "retention": Field(duration_ms),
    }
)
_CHANGELOGS = mapping({"cleanup": Field(one_of("compact")), "delete_retention": Field(duration_ms)})
_SERVICE = mapping({"freshness": Field(duration_ms), "support": Field(text())})
_FILE = mapping(
    {
        "version": Field(whole_number(1, 1)),
        "service": Field(_SERVICE, required=False),
        "profiles": Field(entries(_PROFILE)),
        "topics": Field(listed(_TOPIC, named_by="name", minimum=1)),
        "redrive": Field(_REDRIVE),
        "changelogs": Field(_CHANGELOGS),
    }
)


# ---------------------------------------------------------------- what fields say together


def _check_names(findings: Findings, topics: tuple[Entry, ...]) -> None:
    lines: dict[str, int] = {}
    for entry in topics:
        name, line = entry.value["name"], entry.node.start_mark.line + 1
        if name and lines.setdefault(name, line) != line:
            findings.note(entry.node, entry.where, f"the name is taken by line {lines[name]}")


def _check_topic(findings: Findings, entry: Entry) -> None:
    types = entry.value["types"] or ()
    for each in types:
        if each.value and each.value != "raw" and each.value not in TYPES:
            guess = did_you_mean(each.value, TYPES)
            told = f"unknown ce_type {each.value!r}{guess}; allowed: raw, or one of pipeline.events"
            findings.note(each.node, each.where, told)
    if len(types) > 1 and "raw" in [each.value for each in types]:
        findings.note(entry.node, f"{entry.where}.types", "raw stands alone")
    if "raw" not in [each.value for each in types] and "personal" in names_in(entry.node):
        told = "is said by the fields of the types, in pipeline.events; allowed: with types [raw] only"
        findings.note(entry.node, f"{entry.where}.personal", told)
    _check_retention(findings, entry)


def _check_retention(findings: Findings, entry: Entry) -> None:
    cleanup, retention = entry.value["cleanup"], entry.value["retention"]
    if cleanup and "delete" in cleanup and "retention" not in names_in(entry.node):
        findings.note(entry.node, f"{entry.where}.retention", f"is missing; cleanup {cleanup} needs one")
    if cleanup == "compact" and retention:
        told = "has no effect with cleanup compact; allowed: none, or cleanup compact,delete"
        findings.note(entry.node, f"{entry.where}.retention", told)


def _check_profiles(findings: Findings, profiles: Mapping[str, Entry]) -> None:
    for entry in profiles.values():
        least, most = entry.value["min_insync_replicas"], entry.value["replication"]
        if least and most and least > most:
            told = f"{least} is more than replication; allowed: 1 to {most}"
            findings.note(entry.node, f"{entry.where}.min_insync_replicas", told)


def _check_sharing(findings: Findings, topics: tuple[Entry, ...]) -> None:
    """All inputs of a stage, its redrive topic included, which always has the profile's count, share one."""
    inputs: dict[str, list[Entry]] = {}
    for entry in topics:
        for consumer in entry.value["consumers"] or ():
            if entry.value["read"] == "partition":
                inputs.setdefault(consumer.value, []).append(entry)
    for consumer, shared in inputs.items():
        if len({entry.value["partitions"] for entry in shared}) < 2:
            continue
        counts = ", ".join(f"{e.value['name']} {e.value['partitions'] or 'as the profile'}" for e in shared)
        for entry in (each for each in shared if each.value["partitions"]):
            told = f"the inputs of {consumer} must share one partition count, but have: {counts}"
            findings.note(entry.node, f"{entry.where}.partitions", told)


def _check_deprecated(findings: Findings, topics: tuple[Entry, ...]) -> None:
    """Who reads a topic that ends must find another one, and see it in each record."""
    lasting = {
        e.value["name"] for e in topics if e.value["visibility"] == "public" and not e.value["deprecated"]
    }
    for entry in (each for each in topics if each.value["deprecated"]):
        where, told = f"{entry.where}.deprecated", entry.value["deprecated"]
        if entry.value["visibility"] != "public" or "raw" in [
            each.value for each in entry.value["types"] or ()
        ]:
            findings.note(entry.node, where, "has no effect; allowed: on public topics of typed records")
        if told["instead"] and told["instead"] not in lasting:
            named = f"{told['instead']!r}{did_you_mean(told['instead'], dict.fromkeys(lasting))}"
            allowed = "allowed: a public topic that is not deprecated"
            findings.note(entry.node, f"{where}.instead", f"there is no such topic: {named}; {allowed}")


# ---------------------------------------------------------------- values


def _topic(values: dict[str, Any]) -> Topic:
    fields = {**values, "retention_ms": values["retention"], "cleanup": _CLEANUPS[values["cleanup"]]}
    del fields["retention"]
    for name in ("types", "personal", "producers", "consumers"):
        fields[name] = tuple(entry.value for entry in fields[name])
    if fields["deprecated"]:
        fields["deprecated"] = Deprecation(**fields["deprecated"])
    if fields["types"] != ("raw",):
        fields["personal"] = _personal(fields["types"])
    return Topic(**fields)


def _personal(types: Iterable[str]) -> tuple[str, ...]:
    """The paths that tell of a person in any of *types*, each once."""
    return tuple(dict.fromkeys(path for name in types for path in direct(TYPES[name])))


def _redrive(values: dict[str, Any]) -> list[Topic]:
    return [
        Topic(
            name=f"{stage.value}.redrive",
            description=values["description"],
            owner="pipeline",
            visibility="internal",
            key="original key",
            partitioned_by="explicit",
            types=("raw",),
            cleanup=_CLEANUPS[values["cleanup"]],
            retention_ms=values["retention"],
            personal=("*",),
            producers=("dlq",),
            consumers=(stage.value,),
        )
        for stage in values["stages"]
    ]


def _profile(name: str, values: dict[str, Any]) -> Profile:
    return Profile(
        name=name,
        partitions=values["partitions"],
        replication=values["replication"],
        min_insync_replicas=values["min_insync_replicas"],
        segment_bytes=values["compacted_segment"]["megabytes"] * 2**20,
        segment_ms=values["compacted_segment"]["after"],
    )


def _service(values: dict[str, Any] | None) -> Service:
    return Service(freshness_ms=values["freshness"], support=values["support"]) if values else _COMMON


def _changelogs(values: dict[str, Any]) -> Changelogs:
    return Changelogs(cleanup=_CLEANUPS[values["cleanup"]], delete_retention_ms=values["delete_retention"])
