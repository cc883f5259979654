"""
Ends aiokafka's clients within a bound.

Their ``stop`` flushes, or waits for a rebalance, and so can wait for ever; cancelled in the middle it
leaves connections and tasks behind, and a second call does nothing. So what is left is taken down by
hand, which needs their private parts: here and nowhere else. So does telling that a client is dead.
"""

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

__all__ = ["coordination_ended", "stop_consumer", "stop_producer"]

_log = structlog.get_logger(__name__)

#: Bound of an orderly stop, and again of taking down what is left, in seconds.
STOP_S = 2.0

#: What a client raises that is in no state to be stopped any more.
_EXPECTED = (KafkaError, OSError, RuntimeError, AssertionError, AttributeError)


def coordination_ended(consumer: AIOKafkaConsumer) -> bool:
    """
    Whether nothing follows the consumer's group any more, though it goes on fetching.

    The task of aiokafka that does so ends at any error that it does not know, and tells nobody who does
    not wait just then: such a consumer sends no heartbeat and joins no rebalance, for ever.
    """
    coordinator = getattr(consumer, "_coordinator", None)
    task = getattr(coordinator, "_coordination_task", None)
    return task is not None and task.done()


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Give *producer* up, whatever state it is in; takes at most twice `STOP_S`."""
    _ignore_deliveries(producer)
    if not await _stopped(producer, "producer"):
        sender = getattr(producer, "_sender", None)
        await _taken_down([getattr(sender, "sender_task", None)], producer.client)
    # a fenced producer keeps an exception that nobody asks for, and asyncio would complain
    waiter = getattr(getattr(producer, "_txn_manager", None), "_transaction_waiter", None)
    if waiter is not None and waiter.done():
        _ask(waiter)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group if there is one, and give *consumer* up; takes at most twice `STOP_S`."""
    if not await _stopped(consumer, "consumer"):
        coordinator = getattr(consumer, "_coordinator", None)
        fetcher = getattr(consumer, "_fetcher", None)
        names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        tasks = [getattr(coordinator, name, None) for name in names]
        await _taken_down([*tasks, getattr(fetcher, "_fetch_task", None)], getattr(consumer, "_client", None))


def _ignore_deliveries(producer: AIOKafkaProducer) -> None:
    """Let no batch complain that nobody asked what became of it: who asked has given up."""
    accumulator = getattr(producer, "_message_accumulator", None)
    waiting = [each for queue in getattr(accumulator, "_batches", {}).values() for each in queue]
    for batch in (*waiting, *getattr(accumulator, "_pending_batches", ())):
        batch.future.add_done_callback(_ask)


def _ask(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


async def _stopped(client: AIOKafkaConsumer | AIOKafkaProducer, kind: str) -> bool:
    try:
        async with asyncio.timeout(STOP_S):
            await client.stop()
    except (*_EXPECTED, TimeoutError) as error:
        _log.debug("client.dropped", kind=kind, error=type(error).__name__)
        return False
    return True


async def _taken_down(tasks: list[asyncio.Task[Any] | None], client: Any) -> None:
    """Cancel *tasks* and close the connections, whatever comes of it."""
    running = [task for task in tasks if task is not None and not task.done()]
    for task in running:
        task.cancel()
    try:
        async with asyncio.timeout(STOP_S):
            if client is not None:
                await client.close()
            if running:
                await asyncio.wait(running)
    except (*_EXPECTED, TimeoutError) as error:
        _log.debug("client.abandoned", error=type(error).__name__)
