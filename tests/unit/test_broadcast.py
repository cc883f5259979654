"""The broadcast stage, called directly."""

from pipeline.events import LocationTag
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import Emit, Event, Outcome
from pipeline.stages import broadcast

VIP = LocationTag(tenant="acme", location_id="l1", tag_id="t1", name="VIP", colour="#f00")


def step(value: LocationTag | None) -> Outcome:
    """What the stage makes of *value* under its key."""
    event = Event(topic="users.tags", key="acme:t1", value=value)
    return broadcast.STAGE.step(Layers(0, broadcast.STAGE.stores, Memory()), event)


def test_a_tag_is_copied_under_its_own_key() -> None:
    """A tag leaves as it came, for the topic whose records go to every partition."""
    assert step(VIP) == Outcome(emit=(Emit("users.tags.by-partition", "acme:t1", VIP),))


def test_a_tombstone_is_copied() -> None:
    """A deleted tag is deleted in every partition."""
    assert step(None) == Outcome(emit=(Emit("users.tags.by-partition", "acme:t1", None),))
