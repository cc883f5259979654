"""
Ends aiokafka's clients within a bound.

Their ``stop`` flushes, or waits for a rebalance, and so can wait for ever; cancelled in the middle it
leaves connections and tasks behind, and a second call does nothing. So what is left is taken down by
hand, which needs their private parts: here and nowhere else. So does telling that a client is dead.
"""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

__all__ = ["coordination_ended", "stop_consumer", "stop_producer"]

_log = logging.getLogger(__name__)

#: Bound of an orderly stop, and again of taking down what is left, in seconds.
STOP_S = 2.0

#: Pause before what did not end is cancelled again, in seconds.
_AGAIN_S = 0.05

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
        owners = [getattr(producer, name, None) for name in ("_sender", "_message_accumulator")]
        await _taken_down(owners, producer.client)
    # a fenced producer keeps an exception that nobody asks for, and asyncio would complain
    waiter = getattr(getattr(producer, "_txn_manager", None), "_transaction_waiter", None)
    if waiter is not None and waiter.done():
        _ask(waiter)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group if there is one, and give *consumer* up; takes at most twice `STOP_S`."""
    if not await _stopped(consumer, "consumer"):
        owners = [getattr(consumer, name, None) for name in ("_coordinator", "_fetcher")]
        await _taken_down(owners, getattr(consumer, "_client", None))


def _ignore_deliveries(producer: AIOKafkaProducer) -> None:
    """Let no batch complain that nobody asked what became of it: who asked has given up."""
    accumulator = getattr(producer, "_message_accumulator", None)
    waiting = [each for queue in getattr(accumulator, "_batches", {}).values() for each in queue]
    for batch in (*waiting, *getattr(accumulator, "_pending_batches", ())):
        batch.future.add_done_callback(_ask)


def _ask(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of *future*, or asyncio would complain that nobody did."""
    if not future.cancelled():
        future.exception()


async def _stopped(client: AIOKafkaConsumer | AIOKafkaProducer, kind: str) -> bool:
    try:
        async with asyncio.timeout(STOP_S):
            await client.stop()
    except (*_EXPECTED, TimeoutError) as error:
        _log.debug("client.dropped kind=%s error=%s", kind, type(error).__name__)
        return False
    return True


async def _taken_down(owners: list[Any], client: Any) -> None:
    """Cancel every task that runs a method of one of *owners*, and close the connections."""
    try:
        async with asyncio.timeout(STOP_S):
            while running := _tasks_of(owners):  # some swallow a cancellation, or wait for others that do
                for task in running:
                    task.add_done_callback(_ask)
                    task.cancel()
                await asyncio.wait(running, timeout=_AGAIN_S)
            if client is not None:
                await client.close()
    except (*_EXPECTED, TimeoutError) as error:
        _log.debug("client.abandoned error=%s", type(error).__name__)


def _tasks_of(owners: list[Any]) -> list[asyncio.Task[Any]]:
    """
    The tasks whose outermost coroutine is a method of one of *owners*.

    Those that a sender begins for each request are known to nobody but a local variable of its own, and
    without it they go on for ever, asking for a coordinator through a client that is closed.
    """
    return [task for task in asyncio.all_tasks() if any(_self_of(task) is owner for owner in owners if owner)]


def _self_of(task: asyncio.Task[Any]) -> Any:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return None if frame is None else frame.f_locals.get("self")
