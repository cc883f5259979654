"""OAuth 2 of the Users API: codes, access tokens, and refresh tokens that each work exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.state import Json
from pipeline.sandbox.users_state import Grant, UsersState

__all__ = ["TokenBook"]

ACCESS_TTL_S: Final = 86_399  #: ``expires_in`` of the vendor's document

_CODE_TTL: Final = timedelta(minutes=5)  #: told, not enforced
_LOCATION_TOKEN: Final = ("access_token", "token_type", "expires_in", "scope", "locationId", "userId")


@dataclass(frozen=True, slots=True)
class _Issued:
    grant: Grant
    expires: datetime
    refresh_token: str | None


class TokenBook:
    """
    All tokens in force.

    A refresh kills the old refresh token and the old access token at once (FACTS §2): there is no grace.
    """

    def __init__(self, state: UsersState, *, access_ttl_s: int = ACCESS_TTL_S) -> None:
        self._state = state
        self._ttl = timedelta(seconds=access_ttl_s)
        self._issued: dict[str, _Issued] = {}
        self._refresh: dict[str, tuple[str, Grant]] = {}  #: refresh token → its access token, and for whom
        self._refused_once: set[str] = set()

    def token(self, call: Call) -> Answer:
        """``get-access-token``: form-encoded; authorization_code, refresh_token or client_credentials."""
        if call.content_type != "application/x-www-form-urlencoded":
            raise Refusal(422, ["body must be application/x-www-form-urlencoded"])
        form = call.form
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            raise Refusal(401, "Invalid client credentials", "invalid_client")
        match form.get("grant_type"):
            case "authorization_code":
                grant = self._state.codes.pop(str(form.get("code")), None)
            case "refresh_token":
                grant = self._used_up(str(form.get("refresh_token")))
            case "client_credentials":
                return Answer(200, self._issue(self._asked(form), call.now, refreshable=False))
            case _:
                raise Refusal(422, ["grant_type must be a supported grant type"], "unsupported_grant_type")
        if grant is None:
            raise Refusal(400, "Invalid grant: code or refresh token is invalid", "invalid_grant")
        return Answer(200, self._issue(grant, call.now, refreshable=True))

    def reconnect(self, call: Call) -> Answer:
        """A code for a location whose tokens were lost (help article 155000003717); the app proves itself."""
        body = call.json()
        if (body.get("clientKey"), body.get("clientSecret")) != self._client:
            raise Refusal(401, "Invalid client credentials", "invalid_client")
        location = self._state.location(str(body.get("locationId")))
        told = {"authorizationCode": self._state.add_code(location.id), "traceId": self._state.ids.secret()}
        return Answer(200, {**told, "expiresAt": (call.now + _CODE_TTL).isoformat()})

    def location_token(self, call: Call) -> Answer:
        """``get-location-access-token``: a company's token buys one for a location; without refresh token."""
        form = call.form or call.json()
        grant = self.grant(call)
        if grant.location_id is not None:
            raise Refusal(401, "This route takes a token of a company", "Unauthorized")
        if form.get("companyId") != grant.company_id:
            raise Refusal(422, ["companyId must be the company of the token"])
        location = self._state.location(str(form.get("locationId")))
        narrowed = self._state.grant(location.id, grant.scopes)
        told = self._issue(narrowed, call.now, refreshable=False)
        app = {"appId": self._state.app_id, "versionId": self._state.app_id}
        return Answer(200, {name: told[name] for name in _LOCATION_TOKEN} | app)

    def grant(self, call: Call) -> Grant:
        """
        What the call's bearer may do.

        Raises:
            Refusal: 401, it is unknown, expired, revoked or missing.
        """
        token = call.bearer
        if token in self._refused_once:
            self._refused_once.discard(token)
        elif token in self._state.static_tokens:
            return self._state.static_tokens[token]
        elif (issued := self._issued.get(token)) and issued.expires > call.now:
            return issued.grant
        raise Refusal(401, "Invalid JWT", "Unauthorized")

    def forget(self, token: str, *, refresh_too: bool) -> None:
        """Let a token be expired, or revoked with its refresh token; a static one is refused once."""
        if token in self._state.static_tokens:
            self._refused_once.add(token)
            return
        issued = self._issued.pop(token, None)
        if issued and issued.refresh_token and refresh_too:
            self._refresh.pop(issued.refresh_token, None)

    @property
    def _client(self) -> tuple[str, str]:
        return self._state.client_id, self._state.client_secret

    def _asked(self, form: Mapping[str, Any]) -> Grant:
        """A client-credentials grant: the company, or the location that the form names."""
        location_id = form.get("locationId")
        return self._state.grant(self._state.location(location_id).id if location_id else None)

    def _used_up(self, refresh_token: str) -> Grant | None:
        """The grant behind a refresh token, which is dead from here on, as is its access token."""
        access, grant = self._refresh.pop(refresh_token, (None, None))
        if access is not None:
            self._issued.pop(access, None)
        return grant

    def _issue(self, grant: Grant, now: datetime, *, refreshable: bool) -> Json:
        ids = self._state.ids
        access, refresh = ids.secret(), ids.secret() if refreshable else None
        self._issued = {token: each for token, each in self._issued.items() if each.expires > now}
        self._issued[access] = _Issued(grant, now + self._ttl, refresh)
        told: Json = {"access_token": access, "token_type": "Bearer"}
        told["expires_in"] = int(self._ttl.total_seconds())
        if refresh is not None:
            self._refresh[refresh] = (access, grant)
            told["refresh_token"] = refresh
        told |= {"scope": " ".join(sorted(grant.scopes)), "companyId": grant.company_id}
        told["userId"] = ids.alphanumeric()
        if grant.location_id is None:
            return told | {"userType": "Company"}
        return told | {"userType": "Location", "locationId": grant.location_id}
