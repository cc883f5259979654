"""Keeps the event loop responsive: long work yields in between."""

import asyncio
import time

__all__ = ["Pace", "Stride"]

#: Longest stretch of work between two yields, in seconds; half of what the design allows.
YIELD_S = 0.008


class Pace:
    """Await ``breathe`` between small pieces of work; it yields when the stretch was long enough."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + YIELD_S

    async def breathe(self) -> None:
        """Let others run if it is time."""
        if time.perf_counter() > self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + YIELD_S


class Stride:
    """How many records to take between two looks at the clock: at most *most*, fewer where they take long."""

    def __init__(self, most: int) -> None:
        self.records = most
        self._most = most

    def took(self, seconds: float) -> None:
        """The last stride took *seconds*."""
        self.records = max(1, self.records // 2) if seconds > YIELD_S else min(self._most, self.records + 1)
