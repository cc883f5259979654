"""
What one batch of records turns into: the pure core that the runtime and the broker-free driver share.

A `Processor` runs one stage on one partition. Records are taken one by one; each step sees the
writes of the steps before it. ``close`` ends the batch, which is the records to send, the changes of
the stores and the offsets to commit, and begins the next on top of it. It knows no Kafka and no clock.

Events are encoded after each run of records, while they are in the processor's cache; state and table
records at the close, since of a key only the last is sent. Where something cannot be encoded, the batch
is computed once more, with each outcome tried as soon as it is there: so the record to blame is found,
and nothing of its outcome is kept.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import msgspec

from pipeline.codec import (
    Codec,
    Fetched,
    Made,
    Output,
    Places,
    Read,
    Record,
    encode,
    sent_as_outputs,
)
from pipeline.effects import Change
from pipeline.errors import BrokerError, RecordError, StageFailed
from pipeline.headers import marks
from pipeline.instants import Time
from pipeline.partitioning import partition_of
from pipeline.runtime import dead_letters
from pipeline.runtime.state import Backend, Changes, Layers
from pipeline.stage import Cursor, Delete, Event, Outcome, Posted, Put, Reject, Stage, Store, Write

__all__ = ["Batch", "Pending", "Processor", "stores_of"]

#: Postings are added up when there are so many, however large the batch: far below 20 ms.
MAX_POSTINGS = 1_000


@final
class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A cursor on its way, with what its outputs inherit from the record that caused it."""

    job: str
    at: str
    id: str
    traceparent: str
    received_at: int
    backfill: bool
    marks: tuple[tuple[str, str], ...] = ()


#: Kept for every stage that can resume: sequence number -> cursor.
CURSORS: Store[Pending] = Store("cursors", Pending)


@final
class Batch(msgspec.Struct, kw_only=True):
    """The outcome of one batch; all of it is committed in one transaction."""

    places: Places  #: what is to be written, by topic and partition
    changes: Changes
    next_offsets: dict[str, int]  #: input topic -> offset to commit
    records: int = 0
    reasons: dict[str, int] = {}  #: of its dead letters, with how many there are of each
    failures: int = 0  #: dead letters of unexpected exceptions

    @property
    def outputs(self) -> list[Output]:
        """All that is to be written, place by place."""
        return sent_as_outputs(self.places)

    @property
    def dead_letters(self) -> int:
        """How many records it dead-letters."""
        return sum(self.reasons.values())


def stores_of(stage: Stage) -> tuple[Store[Any], ...]:
    """All stores of *stage*, the runtime's own included."""
    return (*stage.stores, CURSORS) if stage.resume else stage.stores


class Processor:
    """
    Runs *stage* on *partition* over *backend*; *mask* takes personal data out of error texts.

    An unexpected exception of the stage becomes a dead letter, or `StageFailed` where *stops* is set.
    *cached* is how many committed values of each store may be kept decoded; see `Layers`.
    """

    def __init__(
        self,
        stage: Stage,
        partition: int,
        codec: Codec,
        backend: Backend,
        mask: Callable[[str], str] = str,
        *,
        stops: bool = False,
        cached: int = 0,
    ) -> None:
        self.stage = stage
        self.layers = Layers(partition, stores_of(stage), backend, cached)
        self._partition = partition
        self._codec = codec
        self._writer = codec.writer(stage.name)
        self._mask = mask
        self._stops = stops
        self._order = {topic: index for index, topic in enumerate((*stage.inputs, f"{stage.name}.redrive"))}
        self._tables = frozenset(name for name, topic in codec.topics.items() if topic.is_table)
        self._cursor_number: int | None = None
        self._cursors = 0
        self._open()

    def _open(self) -> None:
        self._actions: list[Callable[[], None]] = []
        self._trying = self._stops  # where the first error stops the stage, it has to show at once
        self._begin()

    def _begin(self) -> None:
        self.layers.push()
        self._places: Places = {}
        self._dead: Places = {}
        self._made: list[Made] = []  # what is not encoded yet
        self._latest: dict[tuple[str, str], Made] = {}  # by topic and key, of tables
        self._next_offsets: dict[str, int] = {}
        self._records = 0
        self._failures = 0
        self._reasons: Counter[str] = Counter()
        self._postings: list[Posted] = []

    def order(self, topic: str) -> int:
        """The rank of *topic* among the inputs: of heads with equal timestamps the smallest goes first."""
        return self._order[topic]

    def take(self, topic: str, records: Sequence[Fetched]) -> None:
        """
        Process *records* of *topic*: the outcome of each, or a dead letter, becomes part of the batch.

        Raises:
            BrokerError: the store cannot be read; the record is not to blame.
            StageFailed: an unexpected exception, where that stops the stage; the record is no part of
                the batch, which may be closed without it.
        """
        self._actions.append(partial(self._take, topic, records))
        self._take(topic, records)
        try:
            self._encode()
        except Exception:  # noqa: BLE001 - whose fault it was shows when each outcome is tried
            self._compute_again()

    def refuse(self, topic: str, record: Fetched, reason: Reject, attempts: int) -> None:
        """Dead-letter *record* without a step: its outputs cannot be written."""
        self._actions.append(partial(self._refuse, topic, record, reason, attempts))
        self._refuse(topic, record, reason, attempts)

    def refuse_resume(self, reason: Reject) -> None:
        """Dead-letter the oldest cursor and forget it: what it leads to cannot be written."""
        self._actions.append(partial(self._refuse_resume, reason))
        self._refuse_resume(reason)

    def apply(self, change: Change, cause: Event[Any]) -> None:
        """
        Add what an effect did to the batch.

        Raises:
            RecordError: an output would be too large; nothing of *change* was added.
        """
        self._apply(change, cause)
        self._actions.append(partial(self._apply, change, cause))

    @property
    def resumable(self) -> bool:
        """Whether a cursor waits."""
        if self.stage.resume is None:
            return False
        if self._cursor_number is None:
            self._count_cursors()
        return self._cursors > 0

    def resume(self) -> None:
        """
        Go on with the oldest cursor for one call; its outputs become part of the batch.

        A cursor whose call fails is dead-lettered, and the fan-out ends there.

        Raises:
            BrokerError: the store cannot be read.
            StageFailed: as for records; the cursor stays.
        """
        self._actions.append(self._resume_oldest)
        self._resume_oldest()

    def close(self) -> Batch | None:
        """End the batch and begin the next; None if nothing happened."""
        try:
            batch = self._closed()
        except Exception:  # noqa: BLE001 - as in take
            self._compute_again()
            batch = self._closed()
        if not (batch.next_offsets or batch.places or batch.changes.by_store):
            self.layers.pop()
            self._open()
            return None
        self._open()
        return batch

    def committed(self) -> None:
        """The oldest closed batch is committed and stands in the backend."""
        self.layers.committed()

    def discard(self) -> None:
        """Forget every uncommitted batch and begin anew."""
        self.layers.discard()
        self._cursor_number = None
        self._open()

    def _encode(self) -> None:
        made, self._made = self._made, []
        self._writer.write(made, self._places)

    def _closed(self) -> Batch:
        self._add_up()
        self._encode()
        self._writer.write(self._latest.values(), self._places)
        return Batch(
            places=self._places | self._dead,
            changes=self.layers.changes(),
            next_offsets=self._next_offsets,
            records=self._records,
            reasons=dict(self._reasons),
            failures=self._failures,
        )

    def _compute_again(self) -> None:
        self.layers.pop()
        self._cursor_number = None
        self._trying = True
        self._begin()
        for action in self._actions:
            action()

    def _take(self, topic: str, records: Sequence[Fetched]) -> None:
        if self._postings and self._postings[-1][0].topic != topic:
            self._add_up()
        if topic.endswith(".redrive"):
            for record in records:
                self._take_redriven(topic, record)
        else:
            self._take_all(topic, records)
        if len(self._postings) >= MAX_POSTINGS:
            self._add_up()

    def _take_all(self, topic: str, records: Sequence[Fetched]) -> None:
        read, step, layers, write = self._reader(topic), self.stage.step, self.layers, self._write
        taken = 0
        try:
            for record in records:
                try:
                    event = read(record)
                    outcome = step(layers, event)
                    write(outcome, event)
                    if outcome.reject or outcome.more or outcome.postings:
                        self._add_rest(outcome, event, topic, record, 1)
                except RecordError as error:
                    self._dead_letter(topic, record, Reject(error.reason, str(error)), 1)
                except BrokerError:
                    raise
                except Exception as error:  # noqa: BLE001 - a poison record must not stop the stage
                    self._unexpected(topic, record, error, 1)
                taken += 1
        finally:
            if taken:
                self._next_offsets[topic] = records[taken - 1].offset + 1
                self._records += taken

    def _reader(self, topic: str) -> Read:
        return self._codec.reader(topic, self._partition)

    def _take_redriven(self, topic: str, record: Fetched) -> None:
        attempts = 1
        try:
            original, attempts = dead_letters.original(record, self._order)
            event = self._codec.decode(original)
            self._add(self.stage.step(self.layers, event), event, topic, record, attempts)
        except RecordError as error:
            self._dead_letter(topic, record, Reject(error.reason, str(error)), attempts)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - as for every record
            self._unexpected(topic, record, error, attempts)
        self._passed(topic, record)

    def _passed(self, topic: str, record: Fetched) -> None:
        self._next_offsets[topic] = record.offset + 1
        self._records += 1

    def _refuse(self, topic: str, record: Fetched, reason: Reject, attempts: int) -> None:
        self._dead_letter(topic, record, reason, attempts)
        self._passed(topic, record)

    def _refuse_resume(self, reason: Reject) -> None:
        for key, pending in self.layers.scan(CURSORS, "", "~", limit=1):
            self._give_up(key, pending, reason)

    def _apply(self, change: Change, cause: Event[Any]) -> None:
        outcome = change(self.layers) if callable(change) else change
        self._try(outcome, cause)
        self._add(outcome, cause, cause.topic, _as_record(cause))

    def _resume_oldest(self) -> None:
        self._add_up()
        for key, pending in self.layers.scan(CURSORS, "", "~", limit=1):
            try:
                self._resume(key, pending)
            except RecordError as error:
                self._give_up(key, pending, Reject(error.reason, str(error)))
            except BrokerError:
                raise
            except Exception as error:  # noqa: BLE001 - as for records
                self._stop_at(f"the fan-out {pending.job} at {pending.at}", error)
                self._failures += 1
                self._give_up(key, pending, Reject("unexpected", f"{type(error).__name__}: {error}"))

    def _resume(self, key: str, pending: Pending) -> None:
        assert self.stage.resume is not None
        outcome = self.stage.resume(self.layers, Cursor(pending.job, pending.at))
        event = _cause(pending)
        first, *others = outcome.more or (None,)
        more = tuple(cursor for cursor in others if cursor is not None)
        kept = msgspec.structs.replace(outcome, more=more)
        self._add(kept, event, CURSORS.name, _as_record(event))
        own: Write = Delete(CURSORS, key) if first is None else Put(CURSORS, key, _moved(pending, first))
        self.layers.write((own,))
        self._cursors -= first is None

    def _give_up(self, key: str, pending: Pending, reason: Reject) -> None:
        event = _cause(pending)
        record = Record(CURSORS.name, self._partition, -1, event.received_at, key.encode(), encode(pending))
        self._dead_letter(CURSORS.name, record, reason, 1)
        self.layers.write((Delete(CURSORS, key),))
        self._cursors -= 1

    def _unexpected(self, topic: str, record: Fetched, error: Exception, attempts: int) -> None:
        self._stop_at(f"{topic}[{self._partition}] offset {record.offset}", error)
        self._failures += 1
        reason = Reject("unexpected", f"{type(error).__name__}: {error}")
        self._dead_letter(topic, record, reason, attempts)

    def _stop_at(self, place: str, error: Exception) -> None:
        if self._stops:
            told = self._mask(f"{type(error).__name__}: {error}")[: dead_letters.MAX_ERROR_TEXT]
            raise StageFailed(
                f"{self.stage.name} stopped at {place}, as runtime.on_error says: {told}; "
                "mend the stage and start again, it goes on there"
            ) from error

    def _try(self, outcome: Outcome, cause: Event[Any]) -> None:
        """Raise what an output or a value of *outcome* raises that cannot be encoded."""
        self._writer.write(_made(outcome, cause), {})
        self.layers.check(outcome.writes)

    def _add_up(self) -> None:
        """Let the stage add up what its steps posted; what gets too large is a dead letter of its cause."""
        if self.stage.add_up is None or not self._postings:
            return
        postings, self._postings = self._postings, []
        for cause, outcome in self.stage.add_up(self.layers, postings):
            try:
                self._write(outcome, cause)
            except RecordError as error:
                reason = Reject(error.reason, str(error))
                self._dead_letter(cause.topic, _as_record(cause), reason, 1)

    def _add(
        self, outcome: Outcome, cause: Event[Any], topic: str, record: Fetched, attempts: int = 1
    ) -> None:
        self._write(outcome, cause)
        self._add_rest(outcome, cause, topic, record, attempts)

    def _add_rest(
        self, outcome: Outcome, cause: Event[Any], topic: str, record: Fetched, attempts: int
    ) -> None:
        for reject in outcome.reject:
            self._dead_letter(topic, record, reject, attempts)
        if outcome.more:
            self._keep(outcome.more, cause)
        if outcome.postings:
            self._postings += [(cause, posting) for posting in outcome.postings]

    def _write(self, outcome: Outcome, cause: Event[Any]) -> None:
        if self._trying:
            self._try(outcome, cause)
        if outcome.writes:
            self.layers.write(outcome.writes)
        made = self._made
        for index, emit in enumerate(outcome.emit):
            if emit.topic in self._tables:  # of a table key only the last record is of use
                self._latest[emit.topic, emit.key] = (emit, cause, index)
            else:
                made.append((emit, cause, index))

    def _dead_letter(self, topic: str, record: Fetched, reject: Reject, attempts: int) -> None:
        self._reasons[reject.reason] += 1
        told = Reject(reject.reason, self._mask(reject.error))
        place = dead_letters.Place(self.stage.name, topic, self._partition)
        key, sent = dead_letters.made(place, record, told, attempts)
        letters = self._codec.dead_letters
        partition = partition_of(key, self._codec.partitions(letters))
        self._dead.setdefault((letters, partition), []).append(sent)

    def _keep(self, cursors: tuple[Cursor, ...], cause: Event[Any]) -> None:
        if self._cursor_number is None:
            self._count_cursors()
        assert self._cursor_number is not None
        for cursor in cursors:
            self._cursor_number += 1
            self._cursors += 1
            pending = _pending(cursor, cause)
            self.layers.write((Put(CURSORS, f"{self._cursor_number:016d}", pending),))

    def _count_cursors(self) -> None:
        keys = [key for key, _ in self.layers.scan(CURSORS, "", "~", limit=1_000_000)]
        self._cursors = len(keys)
        self._cursor_number = int(keys[-1]) if keys else 0


def _made(outcome: Outcome, cause: Event[Any]) -> list[Made]:
    return [(emit, cause, index) for index, emit in enumerate(outcome.emit)]


def _as_record(event: Event[Any]) -> Record:
    value = encode(event.value) if isinstance(event.value, msgspec.Struct) else None
    told = {"ce_id": event.id, "ce_type": event.type, "traceparent": event.traceparent}
    headers = tuple((name, text.encode()) for name, text in told.items() if text)
    return Record(event.topic, -1, -1, event.received_at, event.key.encode(), value, headers)


def _pending(cursor: Cursor, cause: Event[Any]) -> Pending:
    return Pending(
        job=cursor.job,
        at=cursor.at,
        id=cause.id,
        traceparent=cause.traceparent,
        received_at=cause.received_at,
        backfill=cause.backfill,
        marks=marks(cause.headers),
    )


def _moved(pending: Pending, cursor: Cursor) -> Pending:
    return msgspec.structs.replace(pending, job=cursor.job, at=cursor.at)


def _cause(pending: Pending) -> Event[Any]:
    place = hashlib.sha256(f"{pending.id}|{pending.job}|{pending.at}".encode()).hexdigest()
    return Event(
        topic=CURSORS.name,
        key=pending.at,
        value=None,
        id=place,
        received_at=pending.received_at,
        occurred_at=Time(""),
        traceparent=pending.traceparent,
        backfill=pending.backfill,
        headers=dict(pending.marks),
    )
