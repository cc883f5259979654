"""Keeps the event loop responsive: long work yields in between."""

import asyncio
import time

__all__ = ["Pace"]

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
