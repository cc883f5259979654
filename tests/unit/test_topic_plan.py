"""What the cluster should hold and how it differs, without a cluster."""

from typing import Any

import msgspec
import pytest

from pipeline import topology
from pipeline.identity import Identity
from pipeline.runtime.batch import stores_of
from pipeline.runtime.names import changelog
from pipeline.runtime.topic_plan import Found, Wanted, compared, wanted
from pipeline.settings import Settings
from pipeline.topics import load

TOPICS = load()
STAGES = tuple(unit.stage for unit in topology.units(Settings(), Identity(b"")))


def all_wanted(profile: str = "dev") -> dict[str, Wanted]:
    """All topics of the pipeline under *profile*, by name."""
    return {topic.name: topic for topic in wanted(TOPICS, TOPICS.profile(profile), "app", STAGES)}


def as_wanted(topic: Wanted, **changes: Any) -> Found:
    """*topic* as a cluster has it, with *changes*."""
    same = Found(
        name=topic.name,
        partitions=topic.partitions,
        led=topic.partitions,
        replication=topic.replication,
        configs={**topic.configs, "compression.type": "producer"},
    )
    return msgspec.structs.replace(same, **changes)


def test_every_store_has_a_changelog() -> None:
    """Each store of each stage, source and sink has the topic that the runtime writes."""
    names = {changelog("app", stage.name, store) for stage in STAGES for store in stores_of(stage)}
    assert names
    assert names <= set(all_wanted())


def test_a_changelog_is_compacted_and_stamped_by_the_log() -> None:
    """Restoring relies on append time, and on tombstones that stay for twice the age of a store."""
    logs = [topic for name, topic in all_wanted().items() if name.endswith(".changelog")]
    assert {(t.configs["cleanup.policy"], t.configs["message.timestamp.type"]) for t in logs} == {
        ("compact", "LogAppendTime")
    }
    assert {topic.configs["delete.retention.ms"] for topic in logs} == {str(14 * 86_400_000)}
    assert {topic.partitions for topic in logs} == {2}


def test_a_store_behind_a_public_name_keeps_its_topic() -> None:
    """What topics.yaml says of a topic stands, also when it serves as a changelog."""
    assert all_wanted()["poll.schedule"].configs["message.timestamp.type"] == "CreateTime"


def test_production_is_larger() -> None:
    """The profile decides partitions, replicas and what must be in sync."""
    events = all_wanted("production")["sakari.events"]
    assert (events.partitions, events.replication, events.configs["min.insync.replicas"]) == (24, 3, "2")


def test_the_same_cluster_is_clean() -> None:
    """What a topic has besides, and topics that nobody here knows, make no difference."""
    topics = all_wanted()
    found = {name: as_wanted(topic) for name, topic in topics.items()}
    found["of.others"] = as_wanted(topics["tokens"], name="of.others", partitions=99)
    assert compared(topics.values(), found).is_clean


def test_the_order_of_cleanup_policies_makes_no_difference() -> None:
    """The broker may give ``delete,compact`` for ``compact,delete``."""
    metrics = all_wanted()["engagement.metrics"]
    found = as_wanted(metrics, configs={**metrics.configs, "cleanup.policy": "delete,compact"})
    assert compared([metrics], {metrics.name: found}).is_clean


@pytest.mark.parametrize(
    ("name", "changes", "setting", "action"),
    [
        ("sakari.events", {"partitions": 3}, "partitions", "refuse"),
        ("sakari.events", {"partitions": 1}, "partitions", "refuse"),
        ("users.tags.by-partition", {"partitions": 1}, "partitions", "refuse"),
        ("clock.ticks", {"partitions": 1}, "partitions", "grow"),
        ("clock.ticks", {"partitions": 3}, "partitions", "refuse"),
        ("sakari.events", {"replication": 3}, "replication", "by-hand"),
        ("sakari.events", {"configs": {}}, "retention.ms", "alter"),
    ],
)
def test_a_difference_says_what_is_done(
    name: str, changes: dict[str, Any], setting: str, action: str
) -> None:
    """Each kind of difference has its action; refused and by-hand ones say why."""
    topic = all_wanted()[name]
    plan = compared([topic], {name: as_wanted(topic, **changes)})
    (found,) = [each for each in plan.differences if each.setting == setting]
    assert found.action == action
    assert bool(found.reason) == (action in {"refuse", "by-hand"})
    assert bool(plan.refusals) == (action == "refuse")


def test_a_missing_topic_is_created() -> None:
    """What is not there is in the plan as a whole."""
    topic = all_wanted()["tokens"]
    plan = compared([topic], {})
    assert plan.missing == (topic,)
    assert [each.action for each in plan.differences] == ["create"]
