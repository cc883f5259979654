"""
Compares the tables of a replay with the live ones, and copies the keys that differ.

Both tables are read to their ends once for the digests of their values, and once more for the values of what
differs. A key that the replay never wrote is told, and left alone: nothing says that it should go.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Final, Literal, final

import msgspec
import orjson

from pipeline.codec import Places, Record
from pipeline.headers import EFFECTS, REPLAY, encoded
from pipeline.masking import masked
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import Job, JobProducer
from pipeline.runtime.pace import Pace
from pipeline.runtime.reader import reading
from pipeline.runtime.shadow import Shadow

__all__ = ["Difference", "Promotion", "compared", "promote", "shown"]

#: Fields that say how often a value was published, and so nothing about it.
_COUNTERS: Final = {"engagement.metrics": "revision"}

#: Keys of one transaction of a promotion.
_PAGE: Final = 500

_Digests = dict[bytes, bytes | None]


@final
class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One key of *table*: in both with other values, only in the replay's, or only in the live one."""

    table: str
    key: str
    kind: Literal["changed", "only-replay", "only-live"]


@final
class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """Which replay's tables are copied to the live ones."""

    of: str  #: the replay's job
    number: int
    effects: bool = False  #: whether sinks act on what is copied
    what: str = "promote"


async def compared(
    connection: Connection, shadow: Shadow, partitions: int, tables: Iterable[str] = ()
) -> list[Difference]:
    """
    Every key by which the replay's tables differ from the live ones, table by table in the order of keys.

    Raises:
        BrokerError: Kafka does not answer.
    """
    found: list[Difference] = []
    for live, own in shadow.tables.items():
        if tables and live not in tables:
            continue
        here = await _digests(connection, live, live, partitions)
        there = await _digests(connection, own, live, partitions)
        found += _differences(live, here, there)
    return found


async def promote(connection: Connection, shadow: Shadow, partitions: int, runner: JobProducer) -> Job:
    """
    Copy the keys that differ to the live tables, each page in one transaction with the job.

    What was copied differs no more, so a job that was killed goes on by comparing again.

    Raises:
        BrokerError: Kafka failed us, or another runner has the job; it can be run again.
    """
    asked = msgspec.convert(runner.job.spec, Promotion)
    for live, own in shadow.tables.items():
        differing = await _to_copy(connection, shadow, partitions, live)
        wanted = {each.key.encode() for each in differing}
        counters = await _latest(connection, live, partitions, wanted) if live in _COUNTERS else {}
        latest = await _latest(connection, own, partitions, wanted)
        for page in _pages([latest[key] for key in sorted(wanted)]):
            places = _copies(asked, runner.job.id, live, page, counters)
            done = runner.job.done + len(page)
            wished = await runner.commit(
                places, msgspec.structs.replace(runner.job, state="running", done=done)
            )
            if wished != "run":
                return await runner.end(wished)
    return await runner.end("done")


async def shown(
    connection: Connection,
    shadow: Shadow,
    partitions: int,
    differences: Iterable[Difference],
    *,
    unmask: bool = False,
) -> AsyncIterator[tuple[Difference, dict[str, Any]]]:
    """Each of *differences* with the fields that differ: name -> what the live table and the replay have."""
    waiting = list(differences)
    for table in dict.fromkeys(each.table for each in waiting):
        own = [each for each in waiting if each.table == table]
        keys = {each.key.encode() for each in own}
        live = await _latest(connection, table, partitions, keys)
        replayed = await _latest(connection, shadow.shadows[table], partitions, keys)
        type_ = "" if unmask else shadow.topics[table].types[0]
        for each in own:
            key = each.key.encode()
            yield each, _fields(_json(live.get(key)), _json(replayed.get(key)), type_)


async def _to_copy(connection: Connection, shadow: Shadow, partitions: int, table: str) -> list[Difference]:
    found = await compared(connection, shadow, partitions, (table,))
    return [each for each in found if each.kind != "only-live"]


def _differences(table: str, live: _Digests, replayed: _Digests) -> list[Difference]:
    found = []
    for key in sorted(live.keys() | replayed.keys()):
        before, after = live.get(key), replayed.get(key)
        if before == after:
            continue
        if key not in replayed:
            kind: Literal["changed", "only-replay", "only-live"] = "only-live"
        else:
            kind = "only-replay" if before is None else "changed"
        found.append(Difference(table=table, key=key.decode(errors="replace"), kind=kind))
    return found


async def _digests(connection: Connection, topic: str, table: str, partitions: int) -> _Digests:
    """Key -> digest of its last value, None of a tombstone."""
    counter = _COUNTERS.get(table)
    digests: _Digests = {}
    pace = Pace()
    async with _everything(connection, topic, partitions) as records:
        async for record in records:
            if record.key is not None:
                digests[record.key] = _digest(record.value, counter)
            await pace.breathe()
    return digests


def _digest(value: bytes | None, counter: str | None) -> bytes | None:
    if value is None:
        return None
    if counter is not None:
        content = orjson.loads(value)
        content.pop(counter, None)
        value = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return blake2b(value, digest_size=16).digest()


async def _latest(
    connection: Connection, topic: str, partitions: int, keys: set[bytes]
) -> dict[bytes, Record]:
    """The last record of each of *keys*."""
    latest: dict[bytes, Record] = {}
    if not keys:
        return latest
    async with _everything(connection, topic, partitions) as records:
        async for record in records:
            if record.key in keys:
                latest[record.key] = record
    return latest


@asynccontextmanager
async def _everything(
    connection: Connection, topic: str, partitions: int
) -> AsyncIterator[AsyncIterator[Record]]:
    async with reading(connection, (topic,), partitions) as reader:
        yield reader.everything()


def _pages(records: list[Record]) -> Iterator[list[Record]]:
    return (records[at : at + _PAGE] for at in range(0, len(records), _PAGE))


def _copies(
    asked: Promotion, id_: str, table: str, records: Iterable[Record], counters: dict[bytes, Record]
) -> Places:
    """*records* for *table*, in the partitions that they have, with the mark of the promotion."""
    marks = [(REPLAY, id_.encode()), *([(EFFECTS, b"true")] if asked.effects else [])]
    places: Places = {}
    for record in records:
        value, headers = record.value, list(record.headers)
        if table in _COUNTERS and record.key is not None:
            value, headers = _counted(table, record, counters.get(record.key))
        kept = [header for header in headers if header[0] not in {REPLAY, EFFECTS}]
        places.setdefault((table, record.partition), []).append(
            (record.timestamp, record.key, value, encoded([*kept, *marks]))
        )
    return places


def _counted(table: str, record: Record, live: Record | None) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """The value of *record* as the one after *live*: readers take the largest for what holds."""
    headers = list(record.headers)
    if record.value is None or live is None or live.value is None:
        return record.value, headers
    name = _COUNTERS[table]
    content = orjson.loads(record.value)
    content[name] = max(content[name], orjson.loads(live.value)[name] + 1)
    id_ = f"{(record.key or b'').decode()}|{content[name]}".encode()
    return orjson.dumps(content), [(n, id_ if n == "ce_id" else value) for n, value in headers]


def _json(record: Record | None) -> Any:
    return None if record is None or record.value is None else orjson.loads(record.value)


def _fields(live: Any, replayed: Any, type_: str) -> dict[str, Any]:
    """The fields by which two values differ, masked unless *type_* is empty; all of one that stands alone."""
    here, there = (masked(each, type_) if type_ else each for each in (live, replayed))
    if not (isinstance(live, dict) and isinstance(replayed, dict)):
        return {"": {"live": here, "replay": there}}
    return {
        name: {"live": here.get(name), "replay": there.get(name)}
        for name in sorted(live.keys() | replayed.keys())
        if live.get(name) != replayed.get(name)
    }
