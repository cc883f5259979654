"""The topology, topics.yaml and the event types tell the same story."""

from typing import Any

import msgspec
import pytest

from pipeline import topology
from pipeline.events import TYPES
from pipeline.identity import Identity
from pipeline.settings import Settings
from pipeline.stage import Stage
from pipeline.topics import Topic, load

TOPICS = load()
STAGES = {unit.stage.name: unit.stage for unit in topology.units(Settings(), Identity(b""))}

#: Types that stand on no topic by themselves, and why.
ELSEWHERE: dict[str, str] = {}
#: Producers and consumers that are no units of the topology, and why.
BESIDE = {
    "receiver": "a service beside the tasks",
    "backfill": "a command that fills sources.received",
    "run": "the process itself keeps the identity's fingerprint",
    "dlq": "a command that puts dead letters back",
    "replay": "a command that copies what topics kept, and runs stages again",
    "erase": "a command that takes a person out",
}
#: Topics that are read or written without being a stage's input or output, and why.
TABLES = {
    "tokens": "read whole by whoever calls an API, written when a token rotates",
    "meta": "read whole by every process at its start",
    "jobs": "read whole by the commands that run, show and stop jobs",
    "jobs.wanted": "read whole by whoever runs a job",
    "audit": "written with whatever an operator decides, read whole by who must know",
    "redactions": "read whole by the poller and by backfills, beside the stages that follow it",
    "dead-letters.edits": "what an operator gave dead letters, read whole by who puts them back",
}


def field_types(struct: Any, path: list[str]) -> bool:
    """Whether *path* leads to a field of *struct*, of one of its parts or of one of a union's."""
    if not path or path[0] == "*":
        return True
    kinds = getattr(struct, "__args__", (struct,))
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
            if path[0] in fields and field_types(fields[path[0]], path[1:]):
                return True
        elif getattr(kind, "__args__", None) and field_types(kind, path):
            return True
    return False


def test_every_registered_type_stands_on_a_topic() -> None:
    """No event type is defined that no topic may carry."""
    carried = {name for topic in TOPICS.values() for name in topic.types}
    assert set(TYPES) - carried == set(ELSEWHERE)


def test_every_type_of_a_topic_is_registered() -> None:
    """No topic promises a type that nobody can decode."""
    assert {name for topic in TOPICS.values() for name in topic.types} - set(TYPES) == {"raw"}


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_personal_fields_exist(topic: Topic) -> None:
    """What is classified as personal is a field of a value that stands there."""
    missing = [
        path
        for path in topic.personal
        if path != "*" and not any(field_types(TYPES[name], path.split(".")) for name in topic.types)
    ]
    assert missing == []


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_stage_reads_and_writes_what_topics_yaml_says(stage: Stage) -> None:
    """Each input names the stage as consumer, each output as producer."""
    unread = [
        name for name in stage.inputs if stage.name not in (*TOPICS[name].consumers, *TOPICS[name].producers)
    ]
    unwritten = [name for name in stage.outputs if stage.name not in TOPICS[name].producers]
    assert (unread, unwritten) == ([], [])


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_every_consumer_reads_and_every_producer_writes(topic: Topic) -> None:
    """Nobody is named who does not read or write the topic."""
    named = [name for name in (*topic.consumers, *topic.producers) if name not in BESIDE]
    assert [name for name in named if name not in STAGES] == []
    if topic.name in TABLES or topic.name == "dead-letters":
        return
    behind = {name for name, stage in STAGES.items() for s in stage.stores if s.changelog == topic.name}
    reads = {name for name, s in STAGES.items() if topic.name in (*s.inputs, f"{name}.redrive")} | behind
    writes = {name for name, s in STAGES.items() if topic.name in s.outputs} | behind
    assert [name for name in topic.consumers if name in STAGES and name not in reads] == []
    assert [name for name in topic.producers if name in STAGES and name not in writes] == []


def test_every_reading_stage_can_be_redriven() -> None:
    """Whoever may refuse a record has a way back for it."""
    reading = {unit.stage.name for unit in topology.units(Settings(), Identity(b"")) if unit.reads}
    assert reading == {name.removesuffix(".redrive") for name in TOPICS if name.endswith(".redrive")}
