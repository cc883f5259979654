"""Facts of products that only the settings know (topic ``sources.events``)."""

from typing import Annotated

import msgspec

from pipeline.events.fields import Body, OccurredAt, Tenant, doc
from pipeline.events.wire import registered

__all__ = ["SourceEvent"]


@registered("source.event.v1")
class SourceEvent(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="source.event.v1"
):
    """An event of a product configured under ``sources`` in the settings."""

    tenant: Tenant
    source: Annotated[str, doc("The product's name in the settings", "survey", personal="none")]
    event_type: Annotated[str, doc("Its type, as the product names it", "scored", personal="none")]
    event_id: Annotated[str, doc("Its id, as the product gives it", "evt_27", personal="none")]
    occurred_at: OccurredAt
    body: Body
