"""
A plain idempotent producer for what comes in from outside: one record, acknowledged or not.

Records of one partition that arrive while a batch of it is on its way wait for the next, which takes them
all: alone a record leaves at once, under load one acknowledgement answers for many. There is no task:
whoever comes first sends for all who wait, then hands the line to the first of those who came since.
"""

import asyncio
from collections import defaultdict, deque

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.codec import Output
from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_producer
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["APART_S", "Publisher"]

#: Batches leave at least so long apart, those of all partitions together, in seconds. A request to the broker
#: costs as much as twenty records, on both sides: under load fewer of them carry more.
APART_S = 0.004

#: A topic and a partition.
_Place = tuple[str, int]


class _Waiting:
    """One record that waits: *told* is True when it is durable, False when its turn to send has come."""

    __slots__ = ("output", "since", "told")

    def __init__(self, output: Output, loop: asyncio.AbstractEventLoop) -> None:
        self.output = output
        self.since = loop.time()
        self.told: asyncio.Future[bool] = loop.create_future()


class _Line:
    """Those who wait for one partition; the first of them sends while it *is_led*."""

    __slots__ = ("is_led", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.is_led = False

    def hand_over(self, leader: _Waiting) -> None:
        """Let the first who waits send, now that *leader* does so no more."""
        while self.waiting and (self.waiting[0] is leader or self.waiting[0].told.done()):
            self.waiting.popleft()
        self.is_led = bool(self.waiting)
        if self.is_led:
            self.waiting[0].told.set_result(False)


class Publisher:
    """
    Writes records with acks=all; *timeout_s* bounds the wait for each acknowledgement.

    With idempotence a batch never expires, so a time-out means *unknown*: the producer is dropped, the
    next call begins a new one, and whoever asked has to ask again.
    """

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._departed_at = 0.0
        self._lines: defaultdict[_Place, _Line] = defaultdict(_Line)

    async def publish(self, output: Output) -> None:
        """
        Return when every in-sync replica has *output*.

        Raises:
            BrokerError: it may or may not be there.
        """
        line = self._lines[output.topic, output.partition]
        mine = _Waiting(output, asyncio.get_running_loop())
        line.waiting.append(mine)
        if line.is_led and await _durable(line, mine):
            return
        line.is_led = True
        producer: AIOKafkaProducer | None = None
        try:
            with broker_errors(f"writing to {output.topic}"):
                async with asyncio.timeout_at(mine.since + self._timeout_s):
                    await self._departure()
                    producer = await self._started()  # to blame for what fails from here on
                    await _sent(producer, line, mine)
        except BrokerError:
            line.hand_over(mine)
            # Others may have begun a new producer meanwhile: that one is not to blame.
            if producer is not None and producer is self._producer:
                await self.close()
            raise
        except BaseException:
            line.hand_over(mine)
            raise
        line.hand_over(mine)

    async def close(self) -> None:
        """Give the producer up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    async def _departure(self) -> None:
        """Let whoever comes until then join: at least those of this turn of the loop."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0, self._departed_at + APART_S - loop.time()))
        self._departed_at = loop.time()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._connection.producer()
                try:
                    await producer.start()
                except BaseException:
                    await stop_producer(producer)  # or its connections stay open
                    raise
                self._producer = producer
            return self._producer


async def _durable(line: _Line, mine: _Waiting) -> bool:
    """Wait until somebody else has sent *mine*; False if it is on it to send."""
    try:
        return await mine.told
    except asyncio.CancelledError:
        if not mine.told.cancelled() and not mine.told.exception() and not mine.told.result():
            line.hand_over(mine)  # it was its turn
        raise


async def _sent(producer: AIOKafkaProducer, line: _Line, mine: _Waiting) -> None:
    """Send all who wait in *line*, as far as one batch takes them; *mine* is the first of them."""
    topic, partition = mine.output.topic, mine.output.partition
    batch: list[_Waiting] = []
    try:
        builder = producer.create_batch()
        _take(builder, line, batch)
        builder.close()
        await (await producer.send_batch(builder, topic, partition=partition))
    except BaseException as error:
        for one in batch:
            if one is not mine and not one.told.done():
                one.told.set_exception(BrokerError(f"writing to {topic}: {type(error).__name__}"))
        raise
    for one in batch:
        if not one.told.done():
            one.told.set_result(True)


def _take(builder: BatchBuilder, line: _Line, batch: list[_Waiting]) -> None:
    """Move those who wait from *line* to *batch*, and their records to *builder*, until it is full."""
    while line.waiting:
        one = line.waiting[0]
        _, _, timestamp, key, value, headers = one.output
        if not one.told.cancelled():
            if builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                break
            batch.append(one)
        line.waiting.popleft()
