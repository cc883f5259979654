"""Facts of products that only the settings know (topic ``sources.events``)."""

import msgspec

from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["SourceEvent"]


@registered("source.event.v1")
class SourceEvent(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="source.event.v1"
):
    """An event of a product configured under ``sources`` in the settings."""

    tenant: str
    source: str  #: its name in the settings
    event_type: str
    event_id: str
    occurred_at: Time
    body: str  #: the JSON as it came; personal data
