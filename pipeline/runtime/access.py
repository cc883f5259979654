"""
What each part of the pipeline does with Kafka, and so what its user has to be granted.

A part is what ``pipeline run --only`` names, and its user is ``<application id>-<part>``. A process that
runs several parts needs what all of them need.
"""

from collections.abc import Iterable, Iterator

from pipeline.contracts.access import Grant, Operation
from pipeline.effects import Unit
from pipeline.runtime import names
from pipeline.runtime.batch import stores_of
from pipeline.topics import Topics

__all__ = ["RECEIVER", "of_pipeline", "user"]

RECEIVER = "receiver"
#: Every process reads it when it starts, and the first one writes it.
_META = "meta"


def user(application_id: str, part: str) -> str:
    """The name of the user of *part*."""
    return f"{application_id}-{part}"


def of_pipeline(units: Iterable[Unit], topics: Topics, application_id: str) -> tuple[Grant, ...]:
    """What the receiver, each of *units*, needs of the cluster."""
    parts: list[Unit | None] = [None, *units]
    return tuple(sorted(grant for unit in parts for grant in _of_part(unit, topics, application_id)))


def _of_part(unit: Unit | None, topics: Topics, application_id: str) -> Iterator[Grant]:
    """The grants of *unit*, None: the receiver."""
    part = unit.stage.name if unit else RECEIVER
    own = user(application_id, part)
    reads, writes = _reads(unit, part, topics), _writes(unit, part, topics)
    if unit:
        logs = {names.changelog(application_id, part, store) for store in stores_of(unit.stage)}
        reads, writes = reads | logs, writes | logs
        yield from _coordinated(own, application_id, part)
    for name in sorted({*topics, *reads, *writes}):  # a process refuses to start while a topic is missing
        operations: list[Operation] = ["Describe"]
        operations += ["Read"] if name in reads else []
        operations += ["Write"] if name in writes else []
        yield Grant(user=own, kind="topic", operations=tuple(operations), name=name)


def _reads(unit: Unit | None, part: str, topics: Topics) -> set[str]:
    inputs = set(names.inputs_of(unit.stage)) if unit and unit.reads else set()
    tables = {topic.name for topic in topics.values() if part in topic.consumers}
    return inputs | tables | {_META}


def _writes(unit: Unit | None, part: str, topics: Topics) -> set[str]:
    told = {topic.name for topic in topics.values() if part in topic.producers}
    return told | set(unit.stage.outputs if unit else ()) | {_META}


def _coordinated(own: str, application_id: str, part: str) -> Iterator[Grant]:
    """Its group, and the transactional id of each of its tasks."""
    yield Grant(
        user=own, kind="group", operations=("Describe", "Read"), name=names.group_id(application_id, part)
    )
    yield Grant(
        user=own,
        kind="transactionalId",
        prefixed=True,
        operations=("Describe", "Write"),
        name=names.transactional_id(application_id, part, 0).removesuffix("0"),
    )
