"""The Users API's users: search, list, read, create, update, delete, filter by e-mail."""

from typing import Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.state import Json
from pipeline.sandbox.state_types import found
from pipeline.sandbox.users_shared import UsersOperation, number, required
from pipeline.sandbox.users_state import UsersState

__all__ = ["OPERATIONS"]


def search(state: UsersState, call: Call) -> Answer:
    """``search-users``: of a company, narrowed by location, text, role, type or ids."""
    query = call.query
    if query.get("companyId") != state.company_id:
        raise Refusal(422, ["companyId must be the company of the token"])
    ids = set(query.get("ids", "").split(",")) - {""}
    text = query.get("query", "").casefold()
    shown = [
        user
        for user in _of_location(state, query.get("locationId"))
        if text in f"{user.get('name', '')} {user.get('email', '')}".casefold()
        and (not ids or user["id"] in ids)
        and all(query.get(name) in (None, user["roles"][name]) for name in ("type", "role"))
    ]
    return _page(shown, query.get("skip"), query.get("limit"))


def filter_by_email(state: UsersState, call: Call) -> Answer:
    """``filter-users-by-email``: ``emails`` is one string, comma-separated."""
    body = call.json()
    required(body, companyId=str, emails=str)
    emails = {each.strip().casefold() for each in body["emails"].split(",")}
    shown = [user for user in state.users.values() if str(user.get("email", "")).casefold() in emails]
    return _page(shown, body.get("skip"), body.get("limit"))


def by_location(state: UsersState, call: Call) -> Answer:
    """``get-user-by-location`` (deprecated by the vendor): all users of a location, without pages."""
    location = state.location(call.query.get("locationId", ""))
    return Answer(200, {"users": _of_location(state, location.id)})


def fetch(state: UsersState, call: Call) -> Answer:
    """``get-user``."""
    return Answer(200, found(state.users, "user", call.params["userId"]))


def create(state: UsersState, call: Call) -> Answer:
    """``create-user``."""
    body = call.json()
    texts = dict.fromkeys(("companyId", "firstName", "lastName", "email", "password", "type", "role"), str)
    required(body, **texts, locationIds=list)
    return Answer(201, state.put_user(body).value)


def update(state: UsersState, call: Call) -> Answer:
    """``update-user``."""
    identity = found(state.users, "user", call.params["userId"])["id"]
    return Answer(200, state.put_user(call.json(), user_id=identity).value)


def remove(state: UsersState, call: Call) -> Answer:
    """``delete-user``."""
    state.remove_user(call.params["userId"])
    return Answer(200, {"succeded": True, "message": "Queued deleting user"})


def _of_location(state: UsersState, location_id: str | None) -> list[Json]:
    users = state.users.values()
    return [user for user in users if location_id is None or location_id in user["roles"]["locationIds"]]


def _page(users: list[Json], skip: object, limit: object) -> Answer:
    start = number(skip, 0, name="skip")
    end = start + number(limit, 25, name="limit", high=1_000)
    return Answer(200, {"users": users[start:end], "count": len(users)})


_READ: Final = ("users.readonly",)
_WRITE: Final = ("users.write",)
OPERATIONS: Final = (
    UsersOperation("search-users", "GET", "/users/search", search, _READ),
    UsersOperation("filter-users-by-email", "POST", "/users/search/filter-by-email", filter_by_email, _READ),
    UsersOperation("get-user-by-location", "GET", "/users/", by_location, _READ),
    UsersOperation("create-user", "POST", "/users/", create, _WRITE),
    UsersOperation("get-user", "GET", "/users/{userId}", fetch, _READ),
    UsersOperation("update-user", "PUT", "/users/{userId}", update, _WRITE),
    UsersOperation("delete-user", "DELETE", "/users/{userId}", remove, _WRITE),
)
