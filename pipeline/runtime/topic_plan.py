"""
What the cluster should hold, and how it differs from what it holds: values only, no Kafka.

`wanted` says which topics there must be under a profile and an application id, changelogs included;
`compared` sets them beside what was `Found`. What a topic has besides, whoever set it, is left alone,
and so are topics that nobody here knows: nothing is ever deleted.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, final

import msgspec

from pipeline.runtime import names
from pipeline.runtime.batch import stores_of
from pipeline.stage import Stage
from pipeline.topics import Profile, Topic, Topics

__all__ = ["MAX_MESSAGE_BYTES", "Difference", "Found", "Plan", "Wanted", "compared", "wanted"]

#: Of a batch as the broker takes it: a record of at most 900 KiB and what frames it.
MAX_MESSAGE_BYTES = 1_048_576


@final
class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it should be; ``keyed``: its records' keys decide their partition."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]
    keyed: bool


@final
class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as the cluster has it."""

    name: str
    partitions: int
    led: int  #: partitions that have a leader now
    replication: int
    configs: Mapping[str, str]  #: as they hold, defaults included
    own: Mapping[str, str] = {}  #: those set on the topic itself


@final
class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that differs, and what `apply` does about it.

    ``create``, ``alter`` and ``grow`` are carried out. ``refuse`` stops the whole of an apply;
    ``by-hand`` is told and left to the operator. *reason* says why, and what to do.
    """

    topic: str
    setting: str  #: ``topic``, ``partitions``, ``replication`` or the name of a config
    found: str | None
    wanted: str
    action: Literal["create", "alter", "grow", "refuse", "by-hand"]
    reason: str = ""


@final
class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything by which the cluster differs, in the order of the topics."""

    wanted: tuple[Wanted, ...]
    found: Mapping[str, Found]
    differences: tuple[Difference, ...]

    @property
    def is_clean(self) -> bool:
        """Whether the cluster is as it should be."""
        return not self.differences

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """The topics that are not there."""
        return tuple(topic for topic in self.wanted if topic.name not in self.found)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why this plan cannot be applied; empty when it can."""
        return tuple(
            f"{each.topic}: {each.setting} {each.found}, not {each.wanted}: {each.reason}"
            for each in self.differences
            if each.action == "refuse"
        )

    def of(self, *actions: str) -> tuple[Difference, ...]:
        """The differences with one of *actions*."""
        return tuple(each for each in self.differences if each.action in actions)


def wanted(
    topics: Topics, profile: Profile, application_id: str, stages: Iterable[Stage] = ()
) -> tuple[Wanted, ...]:
    """All topics of *topics*, then the changelogs of *stages*, as they should be under *profile*."""
    declared = [_declared(topics, topic, profile) for topic in topics.values()]
    taken = {topic.name for topic in declared}
    logs = [log for stage in stages for log in _changelogs(topics, profile, application_id, stage)]
    return (*declared, *(log for log in logs if log.name not in taken))


def compared(wanted: Iterable[Wanted], found: Mapping[str, Found]) -> Plan:
    """How *found* differs from *wanted*."""
    topics = tuple(wanted)
    there = {topic.name: found[topic.name] for topic in topics if topic.name in found}
    differences = [each for topic in topics for each in _differences(topic, there.get(topic.name))]
    return Plan(wanted=topics, found=there, differences=tuple(differences))


def _declared(topics: Topics, topic: Topic, profile: Profile) -> Wanted:
    configs = _configs(profile, topic.cleanup, topics.changelogs.delete_retention_ms, "CreateTime")
    if topic.retention_ms is not None:
        configs["retention.ms"] = str(topic.retention_ms)
    return Wanted(
        name=topic.name,
        partitions=topics.partitions(topic.name, profile),
        replication=profile.replication,
        configs=configs,
        keyed=topic.partitioned_by != "explicit",
    )


def _changelogs(topics: Topics, profile: Profile, application_id: str, stage: Stage) -> Iterable[Wanted]:
    logs = topics.changelogs
    counts = {topics.partitions(name, profile) for name in stage.inputs}
    for store in stores_of(stage):
        yield Wanted(
            name=names.changelog(application_id, stage.name, store),
            partitions=max(counts),
            replication=profile.replication,
            configs=_configs(profile, logs.cleanup, logs.delete_retention_ms, "LogAppendTime"),
            keyed=True,
        )


def _configs(
    profile: Profile, cleanup: tuple[str, ...], delete_retention_ms: int, timestamps: str
) -> dict[str, str]:
    configs = {
        "cleanup.policy": ",".join(cleanup),
        "min.insync.replicas": str(profile.min_insync_replicas),
        "message.timestamp.type": timestamps,
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if "compact" in cleanup:
        configs["delete.retention.ms"] = str(delete_retention_ms)
        configs["segment.bytes"] = str(profile.segment_bytes)
        configs["segment.ms"] = str(profile.segment_ms)
    return configs


def _differences(topic: Wanted, found: Found | None) -> list[Difference]:
    if found is None:
        sizes = f"{topic.partitions} partitions, replication {topic.replication}"
        return [Difference(topic=topic.name, setting="topic", found=None, wanted=sizes, action="create")]
    return [
        *_counts(topic, found),
        *(
            Difference(
                topic=topic.name,
                setting=name,
                found=found.configs.get(name),
                wanted=value,
                action="alter",
            )
            for name, value in topic.configs.items()
            if not _same(found.configs.get(name), value)
        ),
    ]


def _counts(topic: Wanted, found: Found) -> list[Difference]:
    told = []
    if found.partitions != topic.partitions:
        told.append(_partitions(topic, found))
    if found.replication != topic.replication:
        told.append(
            Difference(
                topic=topic.name,
                setting="replication",
                found=str(found.replication),
                wanted=str(topic.replication),
                action="by-hand",
                reason="moves data between brokers; use kafka-reassign-partitions",
            )
        )
    return told


def _partitions(topic: Wanted, found: Found) -> Difference:
    reason = ""
    if topic.keyed:
        reason = (
            "another count sends keys to other partitions than their state;"
            " that is a replay under a new application id"
        )
    elif found.partitions > topic.partitions:
        reason = "Kafka cannot take partitions away; use a new application id or a larger profile"
    return Difference(
        topic=topic.name,
        setting="partitions",
        found=str(found.partitions),
        wanted=str(topic.partitions),
        action="refuse" if reason else "grow",
        reason=reason,
    )


def _same(found: str | None, wanted: str) -> bool:
    """Lists such as ``compact,delete`` are sets: the broker gives them in any order."""
    return found is not None and set(found.split(",")) == set(wanted.split(","))
