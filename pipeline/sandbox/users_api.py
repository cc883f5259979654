"""The Users API as a whole: tokens, scopes, the Version header, rate limits, the vendor's errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from pipeline.sandbox import users_contacts, users_locations, users_people, users_social
from pipeline.sandbox.http_app import Answer, Call, Operation, Refusal
from pipeline.sandbox.state import Json, Missing
from pipeline.sandbox.users_oauth import ACCESS_TTL_S, TokenBook
from pipeline.sandbox.users_shared import UsersOperation, number
from pipeline.sandbox.users_state import UsersState

__all__ = ["Limits", "UsersApi"]

VERSIONS: Final = ("2021-07-28", "2021-04-15", "v3")
_WORDS: Final = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_WORDS_MORE: Final = {422: "Unprocessable Entity", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests per app and location (FACTS §2)."""

    burst: int = 100
    interval_s: int = 10
    daily: int = 200_000


@dataclass(slots=True)
class _Window:
    """Requests of one location in the current interval and the current day."""

    interval: int = -1
    used: int = 0
    day: int = -1
    used_today: int = 0

    def count(self, now: datetime, limits: Limits) -> bool:
        """Count a request at *now*; false where it is one too many, which is not counted."""
        interval, day = int(now.timestamp() // limits.interval_s), now.toordinal()
        if interval != self.interval:
            self.interval, self.used = interval, 0
        if day != self.day:
            self.day, self.used_today = day, 0
        if self.used >= limits.burst or self.used_today >= limits.daily:
            return False
        self.used += 1
        self.used_today += 1
        return True


class UsersApi:
    """
    The door to `UsersState`.

    Args:
        limits: real ones by default; a request over them is a 429 with the vendor's rate headers.
        access_ttl_s: seconds that an access token lives.
    """

    def __init__(
        self, state: UsersState, *, limits: Limits | None = None, access_ttl_s: int = ACCESS_TTL_S
    ) -> None:
        self._state = state
        self._limits = limits or Limits()
        self._tokens = TokenBook(state, access_ttl_s=access_ttl_s)
        self._windows: dict[str, _Window] = {}

    def operations(self) -> tuple[Operation, ...]:
        """Every route; the more specific paths first."""
        modules = (users_social, users_people, users_contacts, users_locations)
        token = self._found_or_404(self._tokens.token)
        location_token = self._found_or_404(self._tokens.location_token)
        again = self._found_or_404(self._tokens.reconnect)
        return (
            Operation(id="get-access-token", method="POST", path="/oauth/token", handle=token, secured=False),
            Operation(id="reconnect", method="POST", path="/oauth/reconnect", handle=again, secured=False),
            Operation(
                id="get-location-access-token",
                method="POST",
                path="/oauth/locationToken",
                handle=location_token,
                scopes=("oauth.write",),
            ),
            Operation(
                id="get-installed-location",
                method="GET",
                path="/oauth/installedLocations",
                handle=self.installed_locations,
                scopes=("oauth.readonly",),
            ),
            *(self._bound(each) for module in modules for each in module.OPERATIONS),
        )

    def installed_locations(self, call: Call) -> Answer:
        """``get-installed-location``: all locations of the company."""
        skip = number(call.query.get("skip"), 0, name="skip")
        limit = number(call.query.get("limit"), 20, name="limit")
        every = [
            {"_id": each.id, "name": each.name, "address": "", "isInstalled": True}
            for each in self._state.locations.values()
        ]
        told = {
            "locations": every[skip : skip + limit],
            "count": len(every),
            "installToFutureLocations": True,
        }
        return Answer(200, told)

    # -- the door ----------------------------------------------------------------------------------

    def admit(self, call: Call, operation: Operation) -> None:
        """Refuse without Version (400), without a living token or scope (401), elsewhere (403), too often."""
        if not operation.secured:
            return
        if call.headers.get("Version") not in VERSIONS:
            raise Refusal(400, f"Version header is missing or unknown; use one of {', '.join(VERSIONS)}")
        grant = self._tokens.grant(call)
        if not set(operation.scopes) <= grant.scopes:
            raise Refusal(401, "The token is not authorized for this scope.")
        target = self._target(call)
        if grant.location_id and target and target != grant.location_id:
            raise Refusal(403, "The token does not have access to this location.")
        window = self._windows.setdefault(self._key(call), _Window())
        if not window.count(call.now, self._limits):
            raise Refusal(429, "Too Many Requests")

    def refused(self, refusal: Refusal) -> Json:
        """``{statusCode, message, error}``; a 422's message is an array; ``error`` may be an OAuth code."""
        error = refusal.code or (_WORDS | _WORDS_MORE).get(refusal.status, "")
        return {"statusCode": refusal.status, "message": refusal.message, "error": error}

    def headers(self, call: Call) -> Mapping[str, str]:
        """The vendor's rate-limit headers, of the location that the call is counted for."""
        if call.operation in {"get-access-token", "reconnect"}:
            return {}
        window = self._windows.get(self._key(call), _Window())
        return self._rate_headers(window.used, window.used_today)

    def throttled_headers(self, call: Call) -> Mapping[str, str]:
        """The rate-limit headers of a location that has used up its interval."""
        window = self._windows.get(self._key(call), _Window())
        return self._rate_headers(self._limits.burst, window.used_today)

    def forget(self, call: Call, *, refresh_too: bool) -> None:
        """Let the call's token be expired, or with its refresh token revoked."""
        self._tokens.forget(call.bearer, refresh_too=refresh_too)

    # -- inside ------------------------------------------------------------------------------------

    def _bound(self, each: UsersOperation) -> Operation:
        handle = self._found_or_404(lambda call: each.handle(self._state, call))
        return Operation(id=each.id, method=each.method, path=each.path, handle=handle, scopes=each.scopes)

    def _found_or_404(self, handle: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        def handled(call: Call) -> Answer:
            try:
                return handle(call)
            except Missing as missing:
                raise Refusal(404, f"{missing.args[0]} not found") from None

        return handled

    def _target(self, call: Call) -> str | None:
        """The location that a call is about, from its path, query, contact or body."""
        named = call.params.get("locationId") or call.query.get("locationId")
        if named:
            return named
        if contact_id := call.params.get("contactId"):
            return next((x.id for x in self._state.locations.values() if contact_id in x.contacts), None)
        return _in_body(call)

    def _key(self, call: Call) -> str:
        grant = self._state.static_tokens.get(call.bearer)
        return self._target(call) or (grant and grant.location_id) or self._state.company_id

    def _rate_headers(self, used: int, used_today: int) -> Mapping[str, str]:
        limits = self._limits
        return {
            "X-RateLimit-Limit-Daily": str(limits.daily),
            "X-RateLimit-Daily-Remaining": str(limits.daily - used_today),
            "X-RateLimit-Interval-Milliseconds": str(limits.interval_s * 1000),
            "X-RateLimit-Max": str(limits.burst),
            "X-RateLimit-Remaining": str(max(0, limits.burst - used)),
        }


def _in_body(call: Call) -> str | None:
    try:
        body = orjson.loads(call.raw or b"null")
    except orjson.JSONDecodeError:
        return None
    named = body.get("locationId") if isinstance(body, dict) else None
    return named if isinstance(named, str) else None
