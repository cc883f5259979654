"""
What a webhook is, before it is understood: who sent it, whose it is, and its native key.

Only as much of a body is read as the native key needs; whatever else is in it is decode's. As there,
ids of contacts are text, and other ids may be numbers.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec
import orjson

from pipeline.identity import native_key, unreadable_key
from pipeline.settings import SourceSettings, Tenant

__all__ = [
    "Owners",
    "addressed",
    "at_path",
    "id_text",
    "parsed",
    "sakari_account",
    "sakari_key",
    "source_key",
    "users_key",
    "users_location",
]


class _Contact(TypedDict, total=False):
    id: str | None


class _Inside(TypedDict, total=False):
    id: str | int | None
    contactId: str | None
    locationId: str | int | None
    contact: _Contact | None


class _Webhook(_Inside, total=False):
    accountId: str | int | None
    eventType: str | None
    type: str | None
    timestamp: str | int | float | None
    webhookId: str | int | None
    payload: _Inside | None
    data: _Inside | None


_WEBHOOK = msgspec.json.Decoder(_Webhook)


def addressed(body: bytes) -> Mapping[str, Any] | None:
    """As much of the JSON object in *body* as `sakari_key` and `users_key` need, None if it is none."""
    try:
        found = _WEBHOOK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parsed(body)
    if not found or found.get("payload") == {} or found.get("data") == {}:
        return parsed(body)  # whether there is anything at all matters
    return found


def parsed(body: bytes) -> dict[str, Any] | None:
    """The JSON object in *body*, None if it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


class Owners:
    """Which tenant an account or location belongs to."""

    def __init__(self, tenants: Mapping[str, Tenant]) -> None:
        self._accounts = {a.account_id: name for name, tenant in tenants.items() for a in tenant.sakari}
        self._locations = {p.location_id: name for name, tenant in tenants.items() for p in tenant.users}

    def of_account(self, account: str) -> str | None:
        """The tenant of a Sakari account."""
        return self._accounts.get(account)

    def of_location(self, location: str) -> str | None:
        """The tenant of a Users API location."""
        return self._locations.get(location)


def sakari_account(body: Mapping[str, Any]) -> str | None:
    """The account that a Sakari webhook speaks for."""
    return _id(body, "accountId")


def sakari_key(tenant: str, raw: bytes, body: Mapping[str, Any] | None) -> str:
    """The native key of a Sakari webhook: its contact's, else its resource's."""
    payload = body and (_object(body, "payload") or _object(body, "data"))
    if not body or not payload:
        return unreadable_key(tenant, raw)
    resource = _id(payload, "id")
    kind = str(body.get("eventType") or body.get("type") or "")
    contact = _text(_object(payload, "contact") or {}, "id")
    if contact is None and kind.startswith(("contact-", "list-")):
        contact = _text(payload, "id")
    if contact is None and resource is None:
        return unreadable_key(tenant, raw)
    return native_key(tenant, "s", contact, resource or "")


def users_location(body: Mapping[str, Any]) -> str | None:
    """The location that a Users API webhook speaks for."""
    return _id(body, "locationId") or _id(_object(body, "data") or {}, "locationId")


def users_key(tenant: str, raw: bytes, body: Mapping[str, Any] | None) -> str:
    """The native key of a Users API webhook: its contact's, else its resource's."""
    if not body:
        return unreadable_key(tenant, raw)
    data = _object(body, "data") or body
    kind = str(body.get("type") or "")
    contact = _text(data, "contactId") or (_text(data, "id") if kind.startswith("Contact") else None)
    resource = _id(data, "id") or _id(body, "webhookId")
    if contact is None and resource is None:
        return unreadable_key(tenant, raw)
    return native_key(tenant, "u", contact, resource or "")


def source_key(tenant: str, source: SourceSettings, raw: bytes, body: Mapping[str, Any] | None) -> str:
    """The native key of a configured product's webhook: by its event id, else by its content."""
    identifier = id_text(at_path(body or {}, source.id_path))
    return native_key(tenant, "x", None, identifier or hashlib.sha256(raw).hexdigest())


def at_path(body: Mapping[str, Any], path: str) -> Any:
    """What stands at the dotted *path* in *body*, None if nothing does."""
    found: Any = body
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def id_text(found: Any) -> str | None:
    """*found* as an id: text, or a whole number; None if it is neither."""
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found) or None


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    found = body.get(name)
    return found if isinstance(found, dict) else None


def _id(body: Mapping[str, Any], name: str) -> str | None:
    return id_text(body.get(name))


def _text(body: Mapping[str, Any], name: str) -> str | None:
    found = body.get(name)
    return found if isinstance(found, str) and found else None
