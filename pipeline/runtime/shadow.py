"""
Stages beside the live ones: the same code under names of its own, so that neither sees the other.

Replay number N of an application ``<app>`` has the groups, transactional ids and changelogs of
``<app>.r<N>``, and writes to ``r<N>.<topic>``. Its stages are the live ones but for the names of what they
read and write: a stage reads the shadow of a topic that another stage of the replay writes, and else the live
topic. What stages see and emit keeps its name, source and id, so that both can be compared.
"""

from collections.abc import Iterable
from typing import Final, final

import msgspec

from pipeline.codec import Codec, Made, Output, Places, Read, Writer
from pipeline.stage import Emit, Event, Stage
from pipeline.topics import Topic, Topics

__all__ = ["Shadow", "ShadowCodec"]

DEAD_LETTERS: Final = "dead-letters"


@final
class Shadow:
    """Replay *number* of *stages*: what its stages and topics are called."""

    def __init__(self, number: int, stages: Iterable[Stage], topics: Topics) -> None:
        self.number = number
        self._live = tuple(stages)
        written = {topic for stage in self._live for topic in stage.outputs}
        redriven = {topics.redrive(stage.name).name for stage in self._live}
        #: live topic -> its shadow
        self.shadows = {name: f"r{number}.{name}" for name in (*sorted(written | redriven), DEAD_LETTERS)}
        own = [_renamed(topics[name], shadow) for name, shadow in self.shadows.items()]
        self.topics = Topics([*topics.values(), *own], topics.profiles.values(), topics.changelogs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages as the replay runs them."""
        return tuple(self._of(stage) for stage in self._live)

    @property
    def tables(self) -> dict[str, str]:
        """Live table that the replay writes and that others may read -> its shadow."""
        return {
            name: shadow
            for name, shadow in self.shadows.items()
            if self.topics[name].is_table and self.topics[name].visibility == "public"
        }

    def outside(self, stage: Stage) -> tuple[str, ...]:
        """The inputs of *stage*, as the replay runs it, that the replay itself does not write."""
        return tuple(name for name in stage.inputs if name not in self.shadows.values())

    def _of(self, stage: Stage) -> Stage:
        return msgspec.structs.replace(
            stage,
            name=f"r{self.number}.{stage.name}",
            inputs=tuple(self.shadows.get(name, name) for name in stage.inputs),
            outputs=tuple(self.shadows[name] for name in stage.outputs),
            stores=tuple(self._store(store) for store in stage.stores),
        )

    def _store(self, store: "object") -> "object":
        changelog = getattr(store, "changelog", "")
        return msgspec.structs.replace(store, changelog=self.shadows[changelog]) if changelog else store  # type: ignore[type-var]


@final
class ShadowCodec(Codec):
    """The codec of a replay: its records stand on shadow topics, and are events of the live ones."""

    def __init__(self, shadow: Shadow, partitions: int, application_id: str) -> None:
        super().__init__(shadow.topics, partitions, application_id)
        self.dead_letters = shadow.shadows[DEAD_LETTERS]
        self._shadows = shadow.shadows
        self._live = {name: live for live, name in shadow.shadows.items()}
        self._prefix = f"r{shadow.number}."

    def reader(self, topic: str, partition: int) -> Read:
        """See `Codec.reader`."""
        return super().reader(self._live.get(topic, topic), partition)

    def writer(self, stage: str) -> Writer:
        """See `Codec.writer`."""
        return _ShadowWriter(super().writer(stage.removeprefix(self._prefix)), self._shadows)  # type: ignore[return-value]


@final
class _ShadowWriter:
    """A `Writer` whose records go to shadow topics."""

    def __init__(self, writer: Writer, shadows: dict[str, str]) -> None:
        self._writer = writer
        self._shadows = shadows

    def outputs(self, emit: Emit, cause: Event[object], index: int) -> list[Output]:
        made = self._writer.outputs(emit, cause, index)
        return [each._replace(topic=self._shadows.get(each.topic, each.topic)) for each in made]

    def write(self, made: Iterable[Made], places: Places) -> None:
        written: Places = {}
        self._writer.write(made, written)
        for (topic, partition), records in written.items():
            places.setdefault((self._shadows.get(topic, topic), partition), []).extend(records)


def _renamed(topic: Topic, name: str) -> Topic:
    """*topic* under another *name*: nobody's contract."""
    return msgspec.structs.replace(topic, name=name, visibility="internal", producers=(), consumers=())
