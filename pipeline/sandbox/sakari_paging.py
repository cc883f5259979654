"""What all of Sakari's handlers share: envelopes, paging and the account's own operations."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Json

__all__ = ["AccountOperation", "done", "listed", "matches", "page"]

_DEFAULT_LIMIT: Final = 25


@dataclass(frozen=True, slots=True)
class AccountOperation:
    """A route below ``/v1/accounts/{accountId}``; *path* is the rest of it."""

    id: str
    method: str
    path: str
    handle: Callable[[SakariAccount, Call], Answer]


def done(data: Json | list[Json] | None = None) -> Json:
    """The envelope of a success."""
    return {"success": True} if data is None else {"success": True, "data": data}


def page(account: SakariAccount, call: Call, found: Collection[Json]) -> tuple[list[Json], Json]:
    """
    The part of *found* that ``offset`` and ``limit`` (1 to 100) ask for, and the ``pagination`` object.

    Raises:
        Refusal: 400, one of them is no number in its range.
    """
    offset = _number(call, "offset", 0, low=0, high=2**31)
    limit = _number(call, "limit", _DEFAULT_LIMIT, low=1, high=100)
    shown = list(islice(found, offset, offset + limit))
    told: Json = {"offset": offset, "limit": limit}
    if account.pagination == "totalCount":
        return shown, told | {"totalCount": len(found)}
    return shown, told | {"hasNext": offset + len(shown) < len(found)}


def listed(
    account: SakariAccount,
    call: Call,
    found: Collection[Json],
    show: Callable[[Json], Json] = lambda item: item,
) -> Answer:
    """One page of *found*, each item as *show* renders it."""
    shown, pagination = page(account, call, found)
    items = [show(item) for item in shown]
    return Answer(200, {"success": True, "pagination": pagination, "data": items})


def matches(text: object, part: str | None) -> bool:
    """Whether *part*, in any case, is in *text*; no part matches everything."""
    return part is None or part.casefold() in str(text or "").casefold()


def _number(call: Call, name: str, default: int, *, low: int, high: int) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise Refusal(400, f"{name} must be a number from {low} to {high}", "GEN-001")
    return int(text)
