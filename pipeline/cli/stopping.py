"""Ctrl-C and SIGTERM: the first asks for an orderly stop, the second ends at once."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stopped_by_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first signal calls *stop*, the second cancels the task that entered it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def take(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            stop()
        else:
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    except asyncio.CancelledError:
        if len(received) < 2:
            raise
        raise KeyboardInterrupt from None
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
