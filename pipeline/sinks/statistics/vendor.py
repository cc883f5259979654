"""
The vendor's dialect: custom values of a location and custom fields of its contacts (FACTS §2).

Only the newest day of a dimension is shown, as ``engagement/<dimension>/<measure>``; which day it is
stands beside them as ``engagement/<dimension>/day``, written first. Days of one dimension come by way of
different partitions, so a day that is over is compared with what the location itself holds.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.clients.users import UsersClient
from pipeline.errors import Rejected, UpstreamError
from pipeline.events import Measures, WindowMetrics
from pipeline.instants import to_ms

__all__ = ["MEASURES", "VendorLocation", "custom_values"]

#: Measures that are shown, in this order; the histogram is shown by its quantiles.
MEASURES: Final = tuple(name for name in Measures.__struct_fields__ if name != "reply_seconds")
#: How long what a location holds is believed when an older day is about to be written, in seconds.
BELIEVED_S: Final = 2.0
#: Refusals that an id gone from the location may explain.
_STALE: Final = frozenset({400, 404, 422})


class VendorLocation:
    """What is known of one location's custom values and fields; used by one at a time."""

    def __init__(self, client: UsersClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._turn = asyncio.Lock()
        self._values: dict[str, tuple[str, str]] | None = None  #: name -> id, value
        self._read_at = 0.0
        self._fields: dict[str, str] | None = None  #: name -> id

    async def put_window(self, metrics: WindowMetrics, now_ms: int, traceparent: str) -> int | None:
        """Show a day of a dimension; the last status, None where a newer day is shown already."""
        async with self._turn:
            over = to_ms(metrics.end) <= now_ms
            known = await self._known_values(BELIEVED_S if over else None)
            wanted = custom_values(metrics)
            shown = known.get(next(iter(wanted)))
            if shown is not None and shown[1] > metrics.start:
                return None
            status = 200
            for name, value in wanted.items():
                status = await self._set_value(name, value, traceparent) or status
            return status

    async def put_contact(self, contact_id: str, fields: Mapping[str, str], traceparent: str) -> int:
        """Set a contact's fields; creates those that the location does not have. The status."""
        ids = await self._field_ids(fields, traceparent)
        try:
            return await self._put_fields(contact_id, ids, fields, traceparent)
        except Rejected as error:
            if error.status not in _STALE:
                raise
            self._fields = None
            renewed = await self._field_ids(fields, traceparent)
            if renewed == ids:
                raise
        return await self._put_fields(contact_id, renewed, fields, traceparent)

    async def _put_fields(
        self, contact_id: str, ids: Mapping[str, str], fields: Mapping[str, str], traceparent: str
    ) -> int:
        values = {ids[name]: value for name, value in fields.items()}
        return await self._client.put_contact_fields(contact_id, values, traceparent=traceparent)

    async def _field_ids(self, names: Mapping[str, str], traceparent: str) -> dict[str, str]:
        async with self._turn:
            if self._fields is None:
                self._fields = _by_name(await self._client.custom_fields())
            for name in names:
                if name not in self._fields:
                    await self._create_field(name, traceparent)
            return {name: self._fields[name] for name in names}

    async def _create_field(self, name: str, traceparent: str) -> None:
        assert self._fields is not None
        try:
            self._fields[name] = await self._client.create_custom_field(name, traceparent=traceparent)
        except UpstreamError:
            # Another process may have made it just before us, or our own request did in spite of all.
            self._fields = _by_name(await self._client.custom_fields())
            if name not in self._fields:
                raise

    async def _known_values(self, believed_s: float | None) -> dict[str, tuple[str, str]]:
        """What the location holds: as we know it, read anew where that is older than *believed_s*."""
        old = believed_s is not None and self._clock() - self._read_at > believed_s
        if self._values is None or old:
            listed = await self._client.custom_values()
            self._values = {}
            for item in listed:
                # Of two of one name the first counts, for every process alike.
                self._values.setdefault(str(item.get("name")), (str(item["id"]), str(item.get("value"))))
            self._read_at = self._clock()
        return self._values

    async def _set_value(self, name: str, value: str, traceparent: str) -> int | None:
        """Make *name* have *value*; the status, None where it has it already."""
        known = (await self._known_values(None)).get(name)
        if known is not None and known[1] == value:
            return None
        try:
            status, identity = await self._write_value(known and known[0], name, value, traceparent)
        except UpstreamError:
            # Whether it was done is not known, and ids may be stale: the next attempt reads anew.
            self._values = None
            raise
        (await self._known_values(None))[name] = (identity, value)
        return status

    async def _write_value(
        self, identity: str | None, name: str, value: str, traceparent: str
    ) -> tuple[int, str]:
        if identity is not None:
            try:
                status = await self._client.update_custom_value(
                    identity, name, value, traceparent=traceparent
                )
            except Rejected as error:
                if error.status not in {404, 410}:
                    raise
            else:
                return status, identity
        created = await self._client.create_custom_value(name, value, traceparent=traceparent)
        return 201, created


def custom_values(metrics: WindowMetrics) -> dict[str, str]:
    """The custom values of a day, name -> value; the first says which day it is."""
    prefix = f"engagement/{metrics.dimension}"
    shown = {f"{prefix}/day": str(metrics.start)}
    for name in MEASURES:
        shown[f"{prefix}/{name}"] = str(getattr(metrics.measures, name))
    return shown


def _by_name(fields: list[dict[str, Any]]) -> dict[str, str]:
    """Name -> id; the vendor's ``fieldKey`` is the name in lower case behind ``contact.``."""
    named = {str(field.get("fieldKey", "")).removeprefix("contact."): str(field["id"]) for field in fields}
    return named | {str(field.get("name")): str(field["id"]) for field in fields}
