"""
The vendor's dialect: custom values of a location and custom fields of its contacts (FACTS §2).

Only the newest day of a dimension is shown, as ``engagement/<dimension>/<measure>``; which day it is
stands beside them as ``engagement/<dimension>/day``, written first. Days of one dimension come by way of
different partitions and processes, so before a day that is over is written, and after any, the location
itself is asked which day it shows.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from pipeline.clients.users import UsersClient
from pipeline.errors import Rejected, UpstreamError
from pipeline.events import Measures, WindowMetrics
from pipeline.instants import to_ms

__all__ = ["MEASURES", "VendorLocation", "custom_values"]

#: Measures that are shown, in this order; the histogram is shown by its quantiles.
MEASURES: Final = tuple(name for name in Measures.__struct_fields__ if name != "reply_seconds")
#: Of the names of custom values that are ours.
PREFIX: Final = "engagement/"
#: How often a day is written again when others write it at the same time.
ROUNDS: Final = 3
#: Refusals that an id gone from the location may explain.
_STALE: Final = frozenset({400, 404, 422})


class VendorLocation:
    """What is known of one location's custom values and fields; used by one at a time."""

    def __init__(self, client: UsersClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._values: dict[str, tuple[str, str]] | None = None  #: name -> id, value
        self._fields: dict[str, str] | None = None  #: name -> id

    async def put_window(self, metrics: WindowMetrics, now_ms: int, traceparent: str) -> int | None:
        """Show a day of a dimension; the last status, None where a newer day is shown already."""
        wanted = custom_values(metrics)
        status = 200
        async with self._turn:
            if self._values is None or to_ms(metrics.end) <= now_ms:
                await self._read_values()
            for _ in range(ROUNDS):
                if self._shown_day(metrics.dimension) > metrics.start:
                    return None
                changed = [name for name, value in wanted.items() if self._value(name) != value]
                if not changed:
                    break
                for name in changed:
                    status = await self._set_value(name, wanted[name], traceparent)
                # Another process may have written at the same time: see what stands there in the end.
                await self._read_values()
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

    async def _read_values(self) -> None:
        """
        Learn what stands there; of two of one name the first counts, for every process alike.

        A second one is left by a process that ended before it knew whether its own was created. It would
        show its first value for ever, so it is taken away.
        """
        values: dict[str, tuple[str, str]] = {}
        surplus: list[str] = []
        for item in await self._client.custom_values():
            name, identity = str(item.get("name")), str(item["id"])
            if name not in values:
                values[name] = (identity, str(item.get("value")))
            elif name.startswith(PREFIX):
                surplus.append(identity)
        for identity in surplus:
            await self._client.delete_custom_value(identity)
        self._values = values

    def _shown_day(self, dimension: str) -> str:
        return self._value(f"{PREFIX}{dimension}/day") or ""

    def _value(self, name: str) -> str | None:
        known = self._values and self._values.get(name)
        return known[1] if known else None

    async def _set_value(self, name: str, value: str, traceparent: str) -> int:
        """Make *name* have *value*; the status."""
        assert self._values is not None
        known = self._values.get(name)
        try:
            status, identity = await self._write_value(known and known[0], name, value, traceparent)
        except UpstreamError:
            # Whether it was done is not known, and ids may be stale: the next attempt reads anew.
            self._values = None
            raise
        self._values[name] = (identity, value)
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
    prefix = f"{PREFIX}{metrics.dimension}"
    shown = {f"{prefix}/day": str(metrics.start)}
    for name in MEASURES:
        shown[f"{prefix}/{name}"] = str(getattr(metrics.measures, name))
    return shown


def _by_name(fields: list[dict[str, Any]]) -> dict[str, str]:
    """Name -> id; the vendor's ``fieldKey`` is the name in lower case behind ``contact.``."""
    named = {str(field.get("fieldKey", "")).removeprefix("contact."): str(field["id"]) for field in fields}
    return named | {str(field.get("name")): str(field["id"]) for field in fields}
