"""
Run stages without a broker, through the same task code as the runtime.

`Driver` keeps every topic in memory. Send records or events in, ``run`` until nothing moves, read
topics and tables. ``restart`` throws the stores away and restores them from their changelogs;
``replay`` runs fresh stages over the kept source topics, as `pipeline replay` does over Kafka's.

Example::

    driver = Driver([broadcast.STAGE, enrich.STAGE])
    driver.send("users.tags", "acme:1", LocationTag(tenant="acme", location_id="l", tag_id="1", name="VIP"))
    driver.run()
    assert driver.table("contacts.enriched") == {}

`FedSubscription` and `FedTable` are doubles of what `pipeline.subscribe` gives, for subscribers' own tests.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from pipeline.codec import Codec, Output, Record, new_traceparent
from pipeline.instants import Time
from pipeline.runtime.batch import Batch, Processor, stores_of
from pipeline.runtime.state import Memory
from pipeline.stage import Emit, Event, Stage
from pipeline.subscribe.double import FedSubscription, FedTable
from pipeline.topics import Topics
from pipeline.topics import load as load_topics

__all__ = ["Driver", "FedSubscription", "FedTable", "Log"]

#: 2030-01-01T00:00:00Z, where a driver's clock begins unless told otherwise.
EPOCH_MS = 1_893_456_000_000


class Log:
    """Topics in memory: ``(topic, partition)`` -> records in offset order."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], list[Record]] = defaultdict(list)

    def append(self, output: Output) -> None:
        """Write *output* at the end of its partition."""
        records = self.partitions[output.topic, output.partition]
        records.append(Record(output.topic, output.partition, len(records), *output[2:5], tuple(output[5])))

    def topic(self, name: str) -> list[Record]:
        """All records of topic *name*, partition after partition."""
        places = sorted(place for place in self.partitions if place[0] == name)
        return [record for place in places for record in self.partitions[place]]


class _Task:
    """One stage on one partition, with its offsets and its store."""

    def __init__(self, stage: Stage, partition: int, codec: Codec) -> None:
        self.stage = stage
        self.partition = partition
        self.inputs = (*stage.inputs, f"{stage.name}.redrive")
        self.offsets: dict[str, int] = dict.fromkeys(self.inputs, 0)
        self.backend = Memory()
        self.processor = Processor(stage, partition, codec, self.backend)

    def batch(self, log: Log, most: int) -> Batch | None:
        """Compute one batch of at most *most* records; None if there is nothing to do."""
        for _ in range(most):
            heads = [r for r in (self._head(log, topic) for topic in self.inputs) if r is not None]
            if not heads:
                break
            record = min(heads, key=lambda head: (head.timestamp, self.processor.order(head.topic)))
            self.processor.take(record.topic, (record,))
            self.offsets[record.topic] = record.offset + 1
        if self.processor.resumable:
            self.processor.resume()
        return self.processor.close()

    def commit(self, batch: Batch) -> None:
        """*batch* stands: apply it to the backend, as the runtime does after its transaction."""
        self.backend.apply(batch.changes)
        self.processor.committed()

    def _head(self, log: Log, topic: str) -> Record | None:
        records = log.partitions.get((topic, self.partition), ())
        return records[self.offsets[topic]] if self.offsets[topic] < len(records) else None


class Driver:
    """
    The topology of *stages* in memory, on *partitions* partitions.

    *batches* gives the sizes of successive batches, so that tests can split the input anywhere; the
    last one is repeated.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        topics: Topics | None = None,
        partitions: int = 2,
        batches: Sequence[int] = (100,),
        application_id: str = "test",
    ) -> None:
        self.codec = Codec(topics or load_topics(), partitions, application_id)
        self.log = Log()
        self.now_ms = EPOCH_MS
        self._stages = tuple(stages)
        self._partitions = partitions
        self._batches = batches
        self._sent = 0
        self._changelogs: dict[tuple[str, int], list[tuple[bytes, bytes | None]]] = defaultdict(list)
        self._tasks = self._fresh()

    def send(
        self,
        topic: str,
        key: str,
        value: Any,
        *,
        at: int | None = None,
        id: str = "",  # noqa: A002 - the field's name
        occurred_at: Time | None = None,
        headers: Mapping[str, str] | None = None,
        backfill: bool = False,
    ) -> None:
        """Write *value* (a typed value, bytes, or None for a tombstone) to *topic*, received *at* ms."""
        self._sent += 1
        source = Event(
            topic="",
            key=key,
            value=None,
            id=f"sent-{self._sent}",
            received_at=self.now_ms if at is None else at,
            traceparent=new_traceparent(str(self._sent).encode()),
            backfill=backfill,
        )
        emit = Emit(topic, key, value, id, occurred_at or Time(""), "", tuple((headers or {}).items()))
        for output in self.codec.encode(emit, source, "test", 0):
            self.log.append(output)

    def append(self, record: Record) -> None:
        """Write *record* as it is, whatever it holds; its offset is given anew."""
        output = Output(*record[:2], record.timestamp, record.key, record.value, list(record.headers))
        self.log.append(output)

    def run(self) -> int:
        """Work until nothing moves; the number of batches that were committed."""
        sizes = iter([*self._batches, *repeat(self._batches[-1], 1_000_000)])
        committed = 0
        moving = True
        while moving:
            moving = False
            for task in self._tasks:
                batch = task.batch(self.log, next(sizes))
                if batch is not None:
                    self._commit(task, batch)
                    committed += 1
                    moving = True
        return committed

    def restart(self) -> None:
        """Throw the stores away and restore them from the changelogs; offsets stay."""
        kept = {(task.stage.name, task.partition): task.offsets for task in self._tasks}
        self._tasks = self._fresh()
        for task in self._tasks:
            task.offsets = kept[task.stage.name, task.partition]
            for store in stores_of(task.stage):
                prefix = store.name.encode() + b"\0"
                entries = self._changelogs[f"{task.stage.name}.{store.name}", task.partition]
                task.backend.apply((prefix + key, value) for key, value in entries)

    def replay(self) -> "Driver":
        """A new driver whose fresh stages work on the records that no stage of this one wrote."""
        fresh = Driver(
            self._stages,
            topics=self.codec.topics,
            partitions=self._partitions,
            batches=self._batches,
            application_id=self.codec.application_id,
        )
        written = {topic for stage in self._stages for topic in (*stage.outputs, "dead-letters")}
        for (topic, _), records in sorted(self.log.partitions.items()):
            if topic not in written:
                for record in records:
                    fresh.append(record)
        fresh.run()
        return fresh

    def records(self, topic: str) -> list[Record]:
        """All records of *topic*."""
        return self.log.topic(topic)

    def events(self, topic: str) -> list[Event[Any]]:
        """All records of a typed *topic*, decoded."""
        return [self.codec.decode(record) for record in self.records(topic)]

    def values(self, topic: str) -> list[Any]:
        """The values of all records of a typed *topic*."""
        return [event.value for event in self.events(topic)]

    def table(self, topic: str) -> dict[str, Any]:
        """The last value of each key of a compacted *topic*, without what was deleted."""
        entries: dict[str, Any] = {}
        for event in self.events(topic):
            entries.pop(event.key, None)
            if event.value is not None:
                entries[event.key] = event.value
        return entries

    def state(self, stage: str) -> dict[bytes, bytes]:
        r"""Every stored entry of *stage* over all partitions, under ``<partition>\\0<store>\\0<key>``."""
        return {
            str(task.partition).encode() + b"\0" + key: value
            for task in self._tasks
            if task.stage.name == stage
            for key, value in task.backend.entries.items()
        }

    def _fresh(self) -> list[_Task]:
        return [
            _Task(stage, number, self.codec) for stage in self._stages for number in range(self._partitions)
        ]

    def _commit(self, task: _Task, batch: Batch) -> None:
        for output in batch.outputs:
            self.log.append(output)
        for store, entries in batch.changes.by_store.items():
            self._changelogs[f"{task.stage.name}.{store}", task.partition] += entries
        task.commit(batch)
