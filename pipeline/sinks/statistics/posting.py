"""How a value is put to the Users API, in the dialect of its tenant."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.clients.users import UsersClient
from pipeline.errors import Unavailable
from pipeline.events import WindowMetrics
from pipeline.instants import from_ms
from pipeline.sinks.statistics.outcomes import statistics_id
from pipeline.sinks.statistics.stage import Plan
from pipeline.sinks.statistics.state import Contact, Pending, Window, contact_fields
from pipeline.sinks.statistics.vendor import VendorLocation

__all__ = ["Poster", "catalogue_body"]


class Poster:
    """Posts to the locations of *plan* by *clients* (by location id)."""

    def __init__(self, plan: Plan, clients: Mapping[str, UsersClient]) -> None:
        self.plan = plan
        self._clients = clients
        self._vendor = {location_id: VendorLocation(client) for location_id, client in clients.items()}

    async def post(self, pending: Pending, now_ms: int) -> int | None:
        """
        Put *pending* to its location; the HTTP status, None where the location holds something newer.

        Raises:
            UpstreamError: it was not taken, or not surely.
        """
        client = self._clients.get(pending.location_id)
        if client is None:
            raise Unavailable(f"location {pending.location_id} is disabled; see its entry in the settings")
        trace = pending.cause.traceparent
        work = pending.work
        match work:
            case Contact():
                place = self._vendor[pending.location_id]
                return await place.put_contact(work.contact_id, contact_fields(work.engagement), trace)
            case Window() if self.plan.destinations[pending.tenant].dialect == "vendor":
                place = self._vendor[pending.location_id]
                return await place.put_window(work.metrics, now_ms, trace)
            case Window():
                return await client.submit_statistics(catalogue_body(pending, work), traceparent=trace)


def catalogue_body(pending: Pending, window: Window) -> dict[str, Any]:
    """
    ``{statisticsId, locationId, timestamp, userCount, metrics}`` of the catalogue.

    ``metrics`` is the whole value as it stands on ``engagement.metrics``, with its ``window_key``;
    ``timestamp`` is when the last record that it counts reached us.
    """
    value: WindowMetrics = window.metrics
    metrics: dict[str, Any] = msgspec.to_builtins(value)
    return {
        "statisticsId": statistics_id(pending),
        "locationId": pending.location_id,
        "timestamp": from_ms(pending.cause.received_at),
        "userCount": value.measures.contacts_messaged,
        "metrics": {"window_key": window.window_key, **metrics},
    }
