"""The names that the runtime gives in Kafka: groups, transactional ids, changelogs."""

from typing import Any

from pipeline.stage import Stage, Store

__all__ = ["changelog", "group_id", "inputs_of", "redrive", "transactional_id"]


def group_id(application_id: str, stage: str) -> str:
    """The consumer group of *stage*."""
    return f"{application_id}.{stage}"


def transactional_id(application_id: str, stage: str, partition: int) -> str:
    """The transactional id of the task of *stage* on *partition*."""
    return f"{application_id}.{stage}.{partition}"


def changelog(application_id: str, stage: str, store: Store[Any]) -> str:
    """The changelog topic of *store*."""
    return store.changelog or f"{application_id}.{stage}.{store.name}.changelog"


def redrive(stage: str) -> str:
    """The topic of the dead letters on their way back to *stage*."""
    return f"{stage}.redrive"


def inputs_of(stage: Stage, *, reads: bool = True) -> tuple[str, ...]:
    """All topics that a task of *stage* follows, in the order in which ties are broken."""
    return (*stage.inputs, redrive(stage.name)) if reads else stage.inputs
