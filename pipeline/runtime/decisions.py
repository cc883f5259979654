"""What operators decide of dead letters: the plan of it, discarding, and giving one another value."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, final

import msgspec
import orjson

from pipeline.codec import MAX_RECORD_BYTES, Codec, Places, Record
from pipeline.errors import ConfigError, RecordError
from pipeline.events.audit import AuditEntry
from pipeline.runtime import audit
from pipeline.runtime.batch import Processor
from pipeline.runtime.connection import Connection
from pipeline.runtime.dead_letters import own_headers
from pipeline.runtime.letters import (
    DISCARDED,
    EDITED,
    REDRIVEN,
    Edit,
    Letter,
    Letters,
    Selection,
    add_edit,
    deciding,
)
from pipeline.runtime.state import Memory
from pipeline.stage import Stage

__all__ = [
    "PAGE",
    "Group",
    "Listing",
    "Plan",
    "State",
    "check_value",
    "discard",
    "edit",
    "listed",
    "obstacle",
    "planned",
    "state_of",
]

#: What became of a letter.
State: TypeAlias = Literal["open", "redriven", "discarded"]

#: Letters of one transaction at most.
PAGE = 500

#: Refusals of a trial that say nothing of the value, but of the settings of whoever tries.
_OF_SETTINGS = ("unknown-tenant", "unknown-source")


@final
class Group(msgspec.Struct, frozen=True, kw_only=True):
    """How many letters a stage refused for one reason."""

    stage: str
    reason: str
    count: int


@final
class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision would be about."""

    matching: int  #: open letters that are meant
    decided: int  #: letters that are meant and were redriven or discarded before
    obstacles: dict[str, int]  #: why letters cannot be redriven -> how many
    groups: tuple[Group, ...]  #: of those that are taken, the most first
    edited: int  #: of those that are taken
    ends: dict[str, int]  #: partition of dead-letters -> what comes later is not meant
    letters: tuple[Letter, ...]  #: those that are taken, without value and headers

    @property
    def taken(self) -> int:
        """How many are taken."""
        return len(self.letters)


@final
class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one state."""

    count: int
    groups: tuple[Group, ...]  #: of all of them
    newest: tuple[tuple[Letter, State, bool], ...]  #: without value and headers, with state and "is edited"


def state_of(letter: Letter, decided: Mapping[str, AuditEntry]) -> State:
    """What became of *letter*."""
    entry = decided.get(letter.id)
    if entry is None:
        return "open"
    return "redriven" if entry.action == REDRIVEN else "discarded"


async def listed(letters: Letters, selection: Selection, state: State | Literal["all"], most: int) -> Listing:
    """
    The letters of *selection* in *state*, counted, and the *most* newest of them.

    Raises:
        BrokerError: Kafka does not answer.
    """
    ends, decided, edits = await letters.ends(), await letters.decisions(), await letters.edits()
    counts: Counter[tuple[str, str]] = Counter()
    newest: list[tuple[int, int, int, Letter]] = []
    async for letter in letters.matching(selection, ends):
        if state not in ("all", state_of(letter, decided)):
            continue
        counts[letter.stage, letter.reason] += 1
        slim = msgspec.structs.replace(letter, value=None, headers=())
        heapq.heappush(newest, (letter.timestamp, letter.partition, letter.offset, slim))
        if len(newest) > most:
            heapq.heappop(newest)
    shown = [each[-1] for each in sorted(newest, key=lambda each: each[:3], reverse=True)]
    return Listing(
        count=counts.total(),
        groups=_groups(counts),
        newest=tuple((each, state_of(each, decided), each.id in edits) for each in shown),
    )


async def planned(
    letters: Letters,
    selection: Selection,
    limit: int,
    hinders: Callable[[Letter, Edit | None], str] = lambda *_: "",
) -> Plan:
    """
    What taking at most *limit* of the open letters of *selection* that nothing *hinders* would be about.

    Raises:
        BrokerError: Kafka does not answer.
    """
    ends, decided, edits = await letters.ends(), await letters.decisions(), await letters.edits()
    matching = gone = edited = 0
    obstacles: Counter[str] = Counter()
    taken: list[Letter] = []
    async for letter in letters.matching(selection, ends):
        if letter.id in decided:
            gone += 1
            continue
        matching += 1
        if hindered := hinders(letter, edits.get(letter.id)):
            obstacles[hindered] += 1
        elif len(taken) < limit:
            taken.append(msgspec.structs.replace(letter, value=None, headers=()))
            edited += letter.id in edits
    return Plan(
        matching=matching,
        decided=gone,
        obstacles=dict(obstacles),
        groups=_groups(Counter((letter.stage, letter.reason) for letter in taken)),
        edited=edited,
        ends=ends,
        letters=tuple(taken),
    )


def _groups(counts: Counter[tuple[str, str]]) -> tuple[Group, ...]:
    """How many there are by stage and reason, the most first."""
    return tuple(Group(stage=stage, reason=why, count=n) for (stage, why), n in counts.most_common())


def obstacle(codec: Codec, letter: Letter, edited: Edit | None) -> str:
    """Why *letter* cannot be put back to its stage; "" if it can."""
    if f"{letter.stage}.redrive" not in codec.topics:
        return "no such stage" if letter.stage else "no provenance"
    if letter.topic not in codec.topics:
        return "no record of a topic"
    if letter.value is None and edited is None and dict(letter.headers).get("dl_cut_bytes", b"") != b"":
        return "its value was too large to keep; edit it"
    if letter.origin_partition >= codec.partitions(f"{letter.stage}.redrive"):
        return "no such partition"
    return ""


async def discard(
    connection: Connection, codec: Codec, plan: Plan, by: str, why: str
) -> tuple[AuditEntry, ...]:
    """
    Record that the letters of *plan* are open no more; returns what was recorded.

    Raises:
        BrokerError: nothing is known of the last page; discarding again adds nothing.
    """
    told = []
    letters = Letters(connection, codec)
    async with deciding(connection, codec) as producer:
        decided, edits = await letters.decisions(), await letters.edits()
        open_ = [letter for letter in plan.letters if letter.id not in decided]
        for page in _pages(open_):
            entry = audit.entry(DISCARDED, by, tuple(letter.id for letter in page), why)
            places: Places = {}
            audit.add(codec, places, entry)
            for letter in page:
                if letter.id in edits:
                    add_edit(places, letter, None, by)
            await producer.commit(places, {})
            told.append(entry)
    return tuple(told)


async def edit(connection: Connection, codec: Codec, letter: Letter, value: bytes | None, by: str) -> None:
    """
    Keep *value* for *letter*: it is what a redrive puts back; None forgets the one it has.

    Raises:
        ConfigError: it is open no more.
        BrokerError: nothing is known of the outcome.
    """
    async with deciding(connection, codec) as producer:
        decided = await Letters(connection, codec).decisions()
        if (entry := decided.get(letter.id)) is not None:
            raise ConfigError(f"{letter.id}: is open no more: {entry.action} by {entry.by} at {entry.at}")
        places: Places = {}
        add_edit(places, letter, value, by)
        audit.add(codec, places, audit.entry(EDITED, by, (letter.id,)))
        await producer.commit(places, {})


def check_value(codec: Codec, letter: Letter, value: bytes, stage: Stage | None) -> None:
    """
    Hold *value* against what its topic carries; what came in raw is tried out in *stage*, without state.

    Raises:
        ConfigError: it could not be processed, with the field that is to blame.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise ConfigError(f"value: has {len(value)} bytes; allowed: {MAX_RECORD_BYTES}")
    if letter.topic not in codec.topics:
        raise ConfigError(f"{letter.id}: came from no topic, so nothing can be put back")
    place = letter.topic, max(0, letter.origin_partition), max(0, letter.origin_offset)
    record = Record(*place, letter.timestamp, letter.key, value, own_headers(letter))
    try:
        codec.decode(record)
    except RecordError as error:
        raise ConfigError(f"value: {error.reason}: {error}") from error
    if codec.topics[letter.topic].types == ("raw",):
        _check_json(value)
        if stage is not None:
            _try_out(codec, stage, record)


def _check_json(value: bytes) -> None:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"value: is no JSON: {error}") from error


def _try_out(codec: Codec, stage: Stage, record: Record) -> None:
    one = Processor(stage, record.partition, codec, Memory())
    one.take(record.topic, (record,))
    batch = one.close()
    for output in batch.outputs if batch is not None else ():
        told = dict(output.headers)
        reason = told.get("dl_reason", b"").decode()
        if output.topic == "dead-letters" and reason not in _OF_SETTINGS:
            raise ConfigError(f"value: {stage.name} would refuse it: {reason}: {told['dl_error'].decode()}")


def _pages(letters: Sequence[Letter]) -> Iterable[Sequence[Letter]]:
    return (letters[at : at + PAGE] for at in range(0, len(letters), PAGE))
