"""
Copy every location tag to every partition of `enrich`.

Reads    ``users.tags``  key: tenant : tag id
Writes   ``users.tags.by-partition``  compacted, the same key and value in each partition
State    none
Time     none
Repeats  a redelivered tag is copied again, which replaces it by itself; deletions are copied too
"""

from pipeline.events import LocationTag
from pipeline.stage import Emit, Event, Outcome, Stage, Stores

__all__ = ["STAGE"]


def _step(_read: Stores, event: Event[LocationTag | None]) -> Outcome:
    """The copy of one tag, or of its tombstone; the topic's partitioning multiplies it."""
    return Outcome(emit=(Emit("users.tags.by-partition", event.key, event.value),))


STAGE = Stage(
    name="broadcast",
    inputs=("users.tags",),
    outputs=("users.tags.by-partition",),
    step=_step,
)
