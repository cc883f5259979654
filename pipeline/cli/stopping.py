"""
Ctrl-C and SIGTERM: the first asks for an orderly stop, the second ends at once.

A process whose event loop hangs hears neither: it is ended as well.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["GRACE_S", "beating", "stopped_by_signals"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

#: Seconds beyond its own deadline that a stop is given to close its clients.
GRACE_S: Final = 5.0

#: How often a process shows that its event loop runs, in seconds.
_BEAT_S: Final = 1.0

#: "At once", in seconds, where something hangs.
_AT_ONCE_S: Final = 1.0

#: Exit codes of a process that had to be ended: it did not stop, and a second signal.
_FAILED: Final = 1
_INTERRUPTED: Final = 130


async def beating(patience_s: float) -> None:
    """
    Until cancelled, end the process where its event loop does not run for *patience_s*.

    It cannot be told to stop then, nor tell that it is not alive; what it hangs in goes to standard error.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(patience_s, exit=True)
            await asyncio.sleep(_BEAT_S)
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def stopped_by_signals(
    stop: Callable[[], None] | None = None, deadline_s: float | None = None
) -> Iterator[None]:
    """
    Within the block the first signal calls *stop*, the second cancels the task that entered it.

    Without *stop* the first signal cancels the block, which then ends in order. With *deadline_s* the
    process ends so long after the first signal, and a second after the second one, whatever hangs:
    nothing committed is lost by that, and what is not committed will be done again.

    Raises:
        KeyboardInterrupt: the second signal ended the block.
    """
    loop = asyncio.get_running_loop()
    stopping = _Stopping(stop, deadline_s)
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.take)
    try:
        yield
    except asyncio.CancelledError:
        stopping.judge()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        stopping.done()


class _Stopping:
    """The signals that came, and what has become of the task that entered the block."""

    def __init__(self, stop: Callable[[], None] | None, deadline_s: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._stop = stop
        self._deadline_s = deadline_s
        self._received = 0
        self._ending: threading.Timer | None = None

    def take(self) -> None:
        """A signal came."""
        self._received += 1
        if self._received == 1 and self._stop is not None:
            self._stop()
        else:
            self._task.cancel()
        if self._deadline_s is not None:
            self._end_within(
                *((self._deadline_s, _FAILED) if self._received == 1 else (_AT_ONCE_S, _INTERRUPTED))
            )

    def judge(self) -> None:
        """The block was cancelled: raise what is to be told of it."""
        if self._received > 1:
            raise KeyboardInterrupt from None
        if not self._received or self._stop is not None:
            raise  # noqa: PLE0704 - the cancellation that is being handled
        self._task.uncancel()

    def done(self) -> None:
        """The block has ended; after a second signal the rest of the process has to as well."""
        if self._ending is not None and self._received < 2:
            self._ending.cancel()

    def _end_within(self, seconds: float, code: int) -> None:
        """A thread of its own ends the process, also where the event loop hangs."""
        if self._ending is not None:
            self._ending.cancel()
        self._ending = threading.Timer(seconds, _end, (code,))
        self._ending.daemon = True
        self._ending.start()


def _end(code: int) -> None:
    if code == _FAILED:
        print("it did not stop in time, and was ended", file=sys.stderr, flush=True)
    os._exit(code)
