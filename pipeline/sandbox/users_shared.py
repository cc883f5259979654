"""What the Users API's handlers share: their location, paging by text numbers, required fields."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.state import Json
from pipeline.sandbox.users_state import UsersLocation, UsersState

__all__ = ["UsersOperation", "location_of", "number", "required"]


@dataclass(frozen=True, slots=True)
class UsersOperation:
    """A route with the scopes it asks for; *id* is the vendor's operationId."""

    id: str
    method: str
    path: str
    handle: Callable[[UsersState, Call], Answer]
    scopes: tuple[str, ...] = ()


def location_of(state: UsersState, call: Call) -> UsersLocation:
    """The location that the path, else the query names."""
    return state.location(call.params.get("locationId") or call.query.get("locationId", ""))


def number(text: object, default: int, *, name: str, high: int = 1_000_000) -> int:
    """
    A count that the vendor takes as text, such as ``limit`` and ``skip``.

    Raises:
        Refusal: 422, it is none or above *high*.
    """
    if text is None or text == "":
        return default
    if not str(text).isascii() or not str(text).isdigit() or int(str(text)) > high:
        raise Refusal(422, [f"{name} must be a number string"])
    return int(str(text))


def required(body: Json, **types: type) -> None:
    """
    Check that *body* has these fields with these types.

    Raises:
        Refusal: 422 with one message for each that is missing or has another type.
    """
    names: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    wrong = [
        f"{name} must be {names[kind]}"
        for name, kind in types.items()
        if not isinstance(body.get(name), kind)
    ]
    if wrong:
        raise Refusal(422, wrong)
