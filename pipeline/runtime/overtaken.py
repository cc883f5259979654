"""Which keys have later records that were processed while their dead letters waited."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from pipeline.codec import Codec
from pipeline.errors import BrokerError
from pipeline.runtime.admin import Admin
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.letters import Letter
from pipeline.runtime.names import group_id
from pipeline.runtime.transaction import broker_errors

__all__ = ["MAX_RECORDS", "Overtaken", "overtaken"]

#: So many records at most are looked at for later ones of the same key, those of all partitions together.
MAX_RECORDS = 200_000

#: Bound of looking, in seconds.
TIMEOUT_S = 30.0

#: Until a cluster has a coordinator for its first group, and how often it is asked, in seconds.
COORDINATOR_S = 10.0
_POLL_S = 0.1

#: Key -> the offset of its earliest letter, of the letters that a stage refused from one partition.
_Keys = dict[bytes, int]


@final
class Overtaken(msgspec.Struct, frozen=True, kw_only=True):
    """How the order of keys stands: *later* keys have later records that the stage has processed."""

    keys: int  #: of the letters
    later: tuple[str, ...]
    unknown: int  #: keys of which it could not be found out within the bounds


async def overtaken(connection: Connection, codec: Codec, letters: Iterable[Letter]) -> Overtaken:
    """
    Which keys of *letters* were overtaken: a later record of theirs was processed by the stage.

    Raises:
        BrokerError: Kafka does not answer.
    """
    waiting = _by_place(letters)
    committed = await _committed(connection, codec, {stage for stage, _ in waiting})
    search = _Search(connection)
    try:
        for (stage, place), keys in waiting.items():
            await search.among(place, keys, committed.get(stage, {}).get((place.topic, place.partition), 0))
    finally:
        await search.close()
    return Overtaken(
        keys=sum(map(len, waiting.values())),
        later=tuple(sorted(key.decode(errors="replace") for key in search.later)),
        unknown=search.unknown,
    )


def _by_place(letters: Iterable[Letter]) -> dict[tuple[str, TopicPartition], _Keys]:
    """Stage and where it read -> the earliest letter of each key."""
    found: dict[tuple[str, TopicPartition], _Keys] = {}
    for letter in letters:
        if letter.key is not None and letter.origin_offset >= 0 and letter.origin_partition >= 0:
            place = TopicPartition(letter.topic, letter.origin_partition)
            keys = found.setdefault((letter.stage, place), {})
            keys[letter.key] = min(letter.origin_offset, keys.get(letter.key, letter.origin_offset))
    return found


async def _committed(
    connection: Connection, codec: Codec, stages: Iterable[str]
) -> Mapping[str, Mapping[tuple[str, int], int]]:
    """Stage -> what its group reads next."""
    async with Admin(connection.common) as admin:
        return {stage: await _patiently(admin, group_id(codec.application_id, stage)) for stage in stages}


async def _patiently(admin: Admin, group: str) -> Mapping[tuple[str, int], int]:
    """The offsets of *group*; a cluster that never had a group first makes the topic for them."""
    until_s = time.monotonic() + COORDINATOR_S
    while True:
        try:
            return await admin.committed(group)
        except BrokerError as error:
            new = isinstance(error.__cause__, GroupCoordinatorNotAvailableError)
            if not new or time.monotonic() > until_s:
                raise
        await asyncio.sleep(_POLL_S)


class _Search:
    """Looks for later records within the bounds of all places together."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._consumer: AIOKafkaConsumer | None = None
        self._left = MAX_RECORDS
        self._until_s = time.monotonic() + TIMEOUT_S
        self.later: set[bytes] = set()
        self.unknown = 0

    async def among(self, place: TopicPartition, keys: _Keys, end: int) -> None:
        """Look for *keys* behind their letters at *place*, up to the offset *end* that is processed."""
        looked_for = {key: offset for key, offset in keys.items() if offset + 1 < end}
        if not looked_for:
            return
        with broker_errors(f"reading {place.topic}"):
            consumer = await self._started()
            consumer.assign([place])
            consumer.seek(place, min(looked_for.values()) + 1)
            while looked_for and self._left > 0 and time.monotonic() < self._until_s:
                if await consumer.position(place) >= end:
                    return
                fetched = await consumer.getmany(place, timeout_ms=200)
                for record in fetched.get(place, ()):
                    self._look(looked_for, record.key, record.offset, end)
                    self._left -= 1
        self.unknown += len(looked_for)

    def _look(self, looked_for: _Keys, key: bytes | None, offset: int, end: int) -> None:
        if key in looked_for and looked_for[key] < offset < end:
            self.later.add(key)
            del looked_for[key]

    async def close(self) -> None:
        if self._consumer is not None:
            await stop_consumer(self._consumer)

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = self._connection.reader()
            await self._consumer.start()
        return self._consumer
