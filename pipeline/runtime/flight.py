"""A batch on its way to be committed, and who waits for it."""

import asyncio
from typing import Any, final

import msgspec

from pipeline.effects import Change
from pipeline.runtime.batch import Batch
from pipeline.stage import Event

__all__ = ["Flight", "Request"]


@final
class Request(msgspec.Struct, frozen=True):
    """A change that an effect asked for; *done* when it stands."""

    change: Change
    cause: Event[Any]
    done: asyncio.Future[None]


@final
class Flight(msgspec.Struct, frozen=True):
    """One batch on its way, and what it is made of besides records."""

    batch: Batch | None  #: None where the requests change nothing
    requests: list[Request]
    resumed: bool

    @property
    def records(self) -> int:
        """How many input records it holds."""
        return self.batch.records if self.batch else 0

    @property
    def culprit(self) -> tuple[str, int] | None:
        """Topic and offset of the only record that can be to blame; None if there may be others."""
        if self.batch is None or self.records != 1 or self.requests or self.resumed:
            return None
        ((topic, next_offset),) = self.batch.next_offsets.items()
        return topic, next_offset - 1

    def settle(self) -> None:
        """Tell whoever asked that it stands."""
        for request in self.requests:
            if not request.done.done():
                request.done.set_result(None)
