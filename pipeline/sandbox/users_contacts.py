"""The Users API's contacts: search with a cursor, read, create, update, upsert, delete, tags."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.ids import from_wire_time
from pipeline.sandbox.state import Change, Json
from pipeline.sandbox.users_shared import UsersOperation, number, required
from pipeline.sandbox.users_state import UsersLocation, UsersState

__all__ = ["OPERATIONS"]

_MAX_PAGE: Final = 500
_FILTERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda held, wanted: held == wanted or (isinstance(held, list) and wanted in held),
    "not_eq": lambda held, wanted: held != wanted,
    "contains": lambda held, wanted: wanted in held if held else False,
    "exists": lambda held, _: bool(held),
    "not_exists": lambda held, _: not held,
}


def search(state: UsersState, call: Call) -> Answer:
    """
    ``search-contacts-advanced``: oldest first; each contact carries the ``searchAfter`` that continues
    behind it. ``total`` counts all that match.
    """
    body = call.json()
    required(body, locationId=str)
    location = state.location(body["locationId"])
    limit = number(body.get("pageLimit"), 20, name="pageLimit", high=_MAX_PAGE)
    found = sorted((c for c in location.contacts.values() if _wanted(c, body)), key=_position)
    start = _start(body, found, limit)
    shown = [_with_cursor(each) for each in found[start : start + limit]]
    return Answer(200, {"contacts": shown, "total": len(found), "traceId": location.ids.uuid()})


def fetch(state: UsersState, call: Call) -> Answer:
    """``get-contact``."""
    identity = call.params["contactId"]
    return Answer(200, {"contact": state.location_of_contact(identity).contact(identity)})


def create(state: UsersState, call: Call) -> Answer:
    """``create-contact``: 400 where the location has a contact with this phone."""
    body = call.json()
    required(body, locationId=str)
    location = state.location(body["locationId"])
    if _twin(location, body) is not None:
        raise Refusal(400, "This location does not allow duplicated contacts.")
    change = _put(location, body, call.now)
    return Answer(201, {"contact": change.value}, change.hooks)


def upsert(state: UsersState, call: Call) -> Answer:
    """``upsert-contact``: the contact with this phone or e-mail is updated, else one is created."""
    body = call.json()
    required(body, locationId=str)
    location = state.location(body["locationId"])
    twin = None if body.get("createNewIfDuplicateAllowed") else _twin(location, body)
    change = _put(location, body, call.now, twin["id"] if twin else None)
    told = {"new": twin is None, "contact": change.value, "traceId": location.ids.uuid()}
    return Answer(200, told, change.hooks)


def update(state: UsersState, call: Call) -> Answer:
    """``update-contact``: ``tags`` replaces them all, ``customFields`` changes the named ones."""
    identity = call.params["contactId"]
    change = _put(state.location_of_contact(identity), call.json(), call.now, identity)
    return Answer(200, {"succeded": True, "contact": change.value}, change.hooks)


def remove(state: UsersState, call: Call) -> Answer:
    """``delete-contact``."""
    identity = call.params["contactId"]
    change = state.location_of_contact(identity).remove_contact(identity, at=call.now)
    return Answer(200, {"succeded": True}, change.hooks)


def add_tags(state: UsersState, call: Call) -> Answer:
    """``add-tags``: answers the whole resulting list."""
    return _retag(state, call, lambda held, given: [*held, *(tag for tag in given if tag not in held)], 201)


def remove_tags(state: UsersState, call: Call) -> Answer:
    """``remove-tags``: answers the whole resulting list."""
    return _retag(state, call, lambda held, given: [tag for tag in held if tag not in given], 200)


def _retag(
    state: UsersState, call: Call, result: Callable[[list[str], list[str]], list[str]], status: int
) -> Answer:
    body = call.json()
    required(body, tags=list)
    identity = call.params["contactId"]
    location = state.location_of_contact(identity)
    tags = result(location.contact(identity)["tags"], [str(tag) for tag in body["tags"]])
    change = location.set_contact_tags(identity, tags, at=call.now)
    return Answer(status, {"tags": tags}, change.hooks)


def _put(location: UsersLocation, body: Json, at: datetime, identity: str | None = None) -> Change:
    """Create or change a contact; the custom fields of *body* join those it has."""
    skipped = ("id", "locationId", "customFields", "createNewIfDuplicateAllowed")
    fields = {name: value for name, value in body.items() if name not in skipped}
    if "customFields" in body:
        known = location.contacts.get(identity or "", {})
        fields["customFields"] = location.merged_fields(known, body["customFields"])
    return location.put_contact(fields, at=at, contact_id=identity)


def _twin(location: UsersLocation, body: Json) -> Json | None:
    for name in ("phone", "email"):
        value = body.get(name)
        for contact in location.contacts.values() if value else ():
            if contact.get(name) == value:
                return contact
    return None


def _wanted(contact: Json, body: Json) -> bool:
    text = str(body.get("query") or "").casefold()
    held = (str(contact.get(name, "")) for name in ("name", "email", "phone"))
    if text and not any(text in each.casefold() for each in held):
        return False
    return all(_passes(contact, each) for each in body.get("filters") or ())


def _passes(contact: Json, condition: Json) -> bool:
    compare = _FILTERS.get(str(condition.get("operator")))
    if compare is None:
        raise Refusal(422, [f"operator must be one of {', '.join(_FILTERS)}"])
    return compare(contact.get(str(condition.get("field"))), condition.get("value"))


def _start(body: Json, found: list[Json], limit: int) -> int:
    cursor = body.get("searchAfter")
    if not cursor:
        return (max(1, number(body.get("page"), 1, name="page")) - 1) * limit
    if not isinstance(cursor, list) or len(cursor) != 2:
        raise Refusal(422, ["searchAfter must be the array of the last contact"])
    behind = (int(cursor[0]), str(cursor[1]))
    return sum(1 for contact in found if _cursor(contact) <= behind)


def _position(contact: Json) -> tuple[str, str]:
    return contact["dateAdded"], contact["id"]


def _cursor(contact: Json) -> tuple[int, str]:
    return round(from_wire_time(contact["dateAdded"]).timestamp() * 1000), contact["id"]


def _with_cursor(contact: Json) -> Json:
    return {**contact, "searchAfter": list(_cursor(contact))}


_READ: Final = ("contacts.readonly",)
_WRITE: Final = ("contacts.write",)
OPERATIONS: Final = (
    UsersOperation("search-contacts-advanced", "POST", "/contacts/search", search, _READ),
    UsersOperation("upsert-contact", "POST", "/contacts/upsert", upsert, _WRITE),
    UsersOperation("create-contact", "POST", "/contacts/", create, _WRITE),
    UsersOperation("get-contact", "GET", "/contacts/{contactId}", fetch, _READ),
    UsersOperation("update-contact", "PUT", "/contacts/{contactId}", update, _WRITE),
    UsersOperation("delete-contact", "DELETE", "/contacts/{contactId}", remove, _WRITE),
    UsersOperation("add-tags", "POST", "/contacts/{contactId}/tags", add_tags, _WRITE),
    UsersOperation("remove-tags", "DELETE", "/contacts/{contactId}/tags", remove_tags, _WRITE),
)
