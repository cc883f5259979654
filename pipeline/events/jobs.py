"""What the durable jobs of operators tell of themselves: replays, backfills, redrives, erasures."""

from typing import Annotated, Any

import msgspec

from pipeline.events.fields import at, choice, doc
from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["Job", "JobWish"]


@registered("job.v1")
class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as its runner last committed it; table ``jobs`` under its id."""

    id: Annotated[str, doc("What it is called", "5f0c2a91", personal="none")]
    kind: Annotated[str, choice("What it does", "replay", "backfill", "redrive", "erase")]
    spec: Annotated[
        dict[str, Any],
        doc("What was asked, in its kind's own words", {"what": "range"}, personal="direct"),
    ]
    state: Annotated[
        str, choice("How far it is", "planned", "running", "paused", "cancelled", "failed", "done")
    ] = "planned"
    wanted: Annotated[str, choice("What was last wished of it", "run", "pause", "cancel")] = "run"
    done: Annotated[int, doc("How much is done", 1200, unit="records or calls")] = 0
    total: Annotated[
        int | None, doc("How much there is, null where nobody knows", 5000, unit="records or calls")
    ] = None
    per_s: Annotated[float | None, doc("How fast it was lately", 480.5, unit="records or calls a s")] = None
    cursor: Annotated[
        dict[str, Any], doc("Where it goes on, in its kind's own words", {"0": 1200}, personal="direct")
    ] = {}
    begun_at: Annotated[Time | None, at("When it was begun, null before")] = None
    updated_at: Annotated[Time | None, at("When its runner last committed")] = None
    error: Annotated[str | None, doc("Why it failed, masked", "Kafka did not answer", personal="none")] = None


@registered("job.wish.v1")
class JobWish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wishes of a job; table ``jobs.wanted`` under its id."""

    id: Annotated[str, doc("The job", "5f0c2a91", personal="none")]
    wanted: Annotated[str, choice("What is wished", "run", "pause", "cancel")]
    wished_at: Annotated[Time, at("When it was wished")]
