"""
Access tokens of both APIs: got once, renewed early, renewed once more when the API refuses one.

Whoever needs a token while another is getting it waits for that one, and shares its failure too: an
API that is down is asked once, not once per caller.

A refresh token of the Users API dies when it is used. So the new one is sealed and stored durably
*before* it is used (`TokenStore`). Between the API's answer and our storing it, it can still be lost: by a
crash, or by an answer that never comes. Then the location is reconnected, which gives a code for a new pair.
"""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

import msgspec
import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.clients.http import Answer, Http
from pipeline.clients.pages import object_of
from pipeline.errors import BrokerError, ConfigError, Rejected, Unavailable, UpstreamError
from pipeline.events import Token
from pipeline.instants import from_ms, to_ms
from pipeline.settings import SakariAccount, SakariApiSettings, UsersApiSettings, UsersLocation

__all__ = ["OAuthTokens", "SakariTokens", "Sealer", "StaticToken", "TokenStore", "Tokens", "store_key"]

_log = structlog.get_logger(__name__)

#: Where a token does not say how long it lives (FACTS §1), in seconds.
ASSUMED_LIFETIME_S: Final = 3_600.0
#: Renewed so long before its end, or a tenth of its life before where that is shorter; in seconds.
EARLY_S: Final = 60.0
#: However a token's times read, it is used for at least so long; a refused one is renewed at once.
SHORTEST_LIFE_S: Final = 5.0


class Tokens(Protocol):
    """Where an API's client gets its bearer."""

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """The scopes that were granted; None where it is not known (yet)."""
        ...

    async def token(self) -> str:
        """
        A token that should be good.

        Raises:
            UpstreamError: none can be had.
        """
        ...

    async def renewed(self, refused: str) -> str:
        """
        Another token than the *refused* one; the same where there is no other.

        Raises:
            UpstreamError: none can be had.
        """
        ...


class TokenStore(Protocol):
    """Where rotated tokens are kept; `save` returns when they are durable."""

    async def load(self, key: str) -> Token | None:
        """The token last saved under *key*, by whatever process."""
        ...

    async def save(self, key: str, token: Token) -> None:
        """
        Keep *token* under *key*.

        Raises:
            BrokerError: it was not kept.
        """
        ...


def store_key(tenant: str, location_id: str) -> str:
    """The key of a location's token in the store."""
    return f"{tenant}|{location_id}"


@final
class _Held(msgspec.Struct, frozen=True):
    """A token in use: *until* is when it is to be renewed, in seconds of the wall clock."""

    token: str
    until: float


class _Flight:
    """One caller works, the others wait and share what it found or met."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._landed = 0
        self._error: UpstreamError | None = None

    async def shared(self, ready: Callable[[], str | None], work: Callable[[], Awaitable[str]]) -> str:
        """What *ready* has, else what *work* gets; *work* runs once for all who wait at the same time."""
        if (token := ready()) is not None:
            return token
        begun = self._landed
        async with self._lock:
            if (token := ready()) is not None:
                return token
            if self._landed != begun and self._error is not None:
                raise self._error
            try:
                token = await work()
            except UpstreamError as error:
                self._error = error
                self._landed += 1
                raise
            self._error = None
            self._landed += 1
            return token


class StaticToken:
    """A token that never changes, but for its file: *reveal* reads it anew when it was refused."""

    def __init__(self, reveal: Callable[[], str]) -> None:
        self._reveal = reveal
        self._token: str | None = None

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """Unknown: a Private Integration Token does not say."""
        return None

    async def token(self) -> str:
        """The token; see `Tokens`."""
        return self._token or self._read()

    async def renewed(self, refused: str) -> str:
        """The token as its file has it now; see `Tokens`."""
        return self._token if self._token and self._token != refused else self._read()

    def _read(self) -> str:
        try:
            self._token = self._reveal()
        except ConfigError as error:
            raise Unavailable(str(error)) from None
        return self._token


class SakariTokens:
    """Tokens of one Sakari account by client credentials."""

    def __init__(
        self,
        http: Http,
        settings: SakariApiSettings,
        account: SakariAccount,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._url = f"{settings.base_url.rstrip('/')}/oauth2/token"
        self._account = account
        self._clock = clock
        self._held: _Held | None = None
        self._flight = _Flight()

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """Sakari knows none."""
        return None

    async def token(self) -> str:
        """A token; see `Tokens`."""
        return await self._flight.shared(lambda: _fresh(self._held, self._clock()), self._fetch)

    async def renewed(self, refused: str) -> str:
        """Another token; see `Tokens`."""
        return await self._flight.shared(lambda: _other(self._held, refused), self._fetch)

    async def _fetch(self) -> str:
        credentials = {
            "grant_type": "client_credentials",
            "client_id": _secret(self._account.client_id.reveal),
            "client_secret": _secret(self._account.client_secret.reveal),
        }
        try:
            answer = await self._http.request("POST", self._url, operation="auth.token", json=credentials)
        except Rejected as error:
            raise _refused(error) from None
        token = _access_token(answer, "auth.token")
        self._held = _held(token, _jwt_lifetime_s(token, self._clock()), self._clock())
        return token


@final
class _Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed: both tokens, and which refresh token of the settings they descend from."""

    access: str
    refresh: str
    origin: str  #: SHA-256 of that first refresh token


class Sealer:
    """Encrypts tokens at rest: AES-256-GCM under *key* (32 bytes), bound to the store key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, context: str) -> str:
        """Nonce and ciphertext of *plain*, base64url."""
        nonce = os.urandom(12)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, plain, context.encode())).decode()

    def open(self, sealed: str, context: str) -> bytes:
        """
        What was sealed for *context*.

        Raises:
            Unavailable: it was sealed with another secret or for another context, or changed.
        """
        try:
            raw = base64.urlsafe_b64decode(sealed)
            return self._cipher.decrypt(raw[:12], raw[12:], context.encode())
        except (InvalidTag, ValueError):
            raise Unavailable(
                f"the token stored for {context} cannot be opened with this identity secret; "
                "delete its record in topic tokens to begin again from the settings"
            ) from None


class OAuthTokens:
    """Tokens of one location by OAuth with rotating refresh tokens; kept under `store_key`."""

    def __init__(
        self,
        http: Http,
        settings: UsersApiSettings,
        location: UsersLocation,
        *,
        tenant: str,
        store: TokenStore,
        sealer: Sealer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._oauth = f"{settings.base_url.rstrip('/')}/oauth"
        self._location = location
        self._key = store_key(tenant, location.location_id)
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._held: _Held | None = None
        self._scopes: tuple[str, ...] | None = None
        self._unsaved: tuple[Token, _Pair] | None = None
        self._dead = ""  #: the refresh token that was refused last
        self._flight = _Flight()

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """The scopes of the last token; None before the first."""
        return self._scopes

    async def token(self) -> str:
        """A token; see `Tokens`."""
        return await self._flight.shared(lambda: _fresh(self._held, self._clock()), self._next)

    async def renewed(self, refused: str) -> str:
        """Another token; see `Tokens`."""
        return await self._flight.shared(lambda: _other(self._held, refused), lambda: self._next(refused))

    async def _next(self, refused: str = "") -> str:
        """The stored token where it is good and not *refused*, else a new one by its refresh token."""
        if self._unsaved is not None:
            return await self._save(*self._unsaved)
        origin = _digest(_secret(self._refresh_setting))
        stored = await self._stored(origin)
        if stored is not None and stored[1].access != refused:
            token = self._take(*stored)
            if _fresh(self._held, self._clock()) is not None:
                return token
        refresh = stored[1].refresh if stored else _secret(self._refresh_setting)
        return await self._refresh(refresh, origin)

    async def _refresh(self, refresh: str, origin: str) -> str:
        try:
            answer = await self._asked({"grant_type": "refresh_token", "refresh_token": refresh})
        except Rejected as error:
            # Another process may have used it just before us, and stored what it got.
            stored = await self._stored(origin)
            if stored is not None and stored[1].refresh != refresh:
                return self._take(*stored)
            return await self._reconnected(refresh, origin, error)
        return await self._kept(answer, origin)

    async def _reconnected(self, refresh: str, origin: str, refused: Rejected) -> str:
        """A token by a new code, once *refresh* was refused twice: whoever used it had the time to store."""
        if self._dead != refresh:
            self._dead = refresh
            raise _refused(refused) from None
        app = {
            "clientKey": self._client["client_id"],
            "clientSecret": self._client["client_secret"],
            "locationId": self._location.location_id,
        }
        try:
            told = await self._http.request(
                "POST", f"{self._oauth}/reconnect", operation="oauth.reconnect", json=app
            )
            code = str(object_of(told.json, "oauth.reconnect").get("authorizationCode", ""))
            answer = await self._asked({"grant_type": "authorization_code", "code": code})
        except Rejected:
            raise _refused(refused) from None
        _log.warning("token.reconnected", location=self._location.location_id)
        return await self._kept(answer, origin)

    async def _asked(self, grant: dict[str, str]) -> Answer:
        form = {**self._client, **grant, "user_type": "Location"}
        return await self._http.request("POST", f"{self._oauth}/token", operation="oauth.token", form=form)

    async def _kept(self, answer: Answer, origin: str) -> str:
        token, pair = self._granted(answer, origin)
        self._unsaved = (token, pair)
        return await self._save(token, pair)

    @property
    def _client(self) -> dict[str, str]:
        assert self._location.client_id is not None
        assert self._location.client_secret is not None
        return {
            "client_id": _secret(self._location.client_id.reveal),
            "client_secret": _secret(self._location.client_secret.reveal),
        }

    def _granted(self, answer: Answer, origin: str) -> tuple[Token, _Pair]:
        access = _access_token(answer, "oauth.token")
        refresh = answer.json.get("refresh_token")
        if not isinstance(refresh, str) or not refresh:
            raise Unavailable("oauth.token: refresh_token is missing")
        lifetime = answer.json.get("expires_in")
        seconds = float(lifetime) if isinstance(lifetime, int | float) else ASSUMED_LIFETIME_S
        scope = answer.json.get("scope")
        pair = _Pair(access=access, refresh=refresh, origin=origin)
        token = Token(
            sealed=self._sealer.seal(msgspec.json.encode(pair), self._key),
            expires_at=from_ms(round((self._clock() + seconds) * 1000)),
            scopes=tuple(scope.split()) if isinstance(scope, str) else (),
        )
        return token, pair

    async def _save(self, token: Token, pair: _Pair) -> str:
        try:
            await self._store.save(self._key, token)
        except BrokerError as error:
            raise Unavailable(f"the renewed token cannot be stored: {error}") from error
        self._unsaved = None
        return self._take(token, pair)

    async def _stored(self, origin: str) -> tuple[Token, _Pair] | None:
        """The stored token, unless the settings were given another refresh token since."""
        try:
            token = await self._store.load(self._key)
        except BrokerError as error:
            raise Unavailable(f"the stored token cannot be read: {error}") from error
        if token is None:
            return None
        pair = msgspec.json.decode(self._sealer.open(token.sealed, self._key), type=_Pair)
        return (token, pair) if pair.origin == origin else None

    def _take(self, token: Token, pair: _Pair) -> str:
        now = self._clock()
        self._held = _held(pair.access, to_ms(token.expires_at) / 1000 - now, now)
        self._scopes = token.scopes
        return pair.access

    def _refresh_setting(self) -> str:
        assert self._location.refresh_token is not None
        return self._location.refresh_token.reveal()


def _fresh(held: _Held | None, now: float) -> str | None:
    return held.token if held is not None and now < held.until else None


def _other(held: _Held | None, refused: str) -> str | None:
    return held.token if held is not None and held.token != refused else None


def _held(token: str, lifetime_s: float, now: float) -> _Held:
    early = min(EARLY_S, lifetime_s / 10)
    return _Held(token, now + (lifetime_s - early))


def _jwt_lifetime_s(token: str, now: float) -> float:
    """Seconds that the JWT *token* is good for; unsigned reading: it is ours to use, not to trust."""
    try:
        body = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        # The difference does not depend on how far our clock is from theirs.
        lifetime = float(claims["exp"]) - float(claims.get("iat", now))
    except (LookupError, TypeError, ValueError, AttributeError):
        return ASSUMED_LIFETIME_S
    return max(lifetime, SHORTEST_LIFE_S)


def _access_token(answer: Answer, operation: str) -> str:
    token = object_of(answer.json, operation).get("access_token")
    if not isinstance(token, str) or not token:
        raise Unavailable(f"{operation}: access_token is missing")
    return token


def _refused(error: Rejected) -> Unavailable:
    """No token is no verdict on the request that needed one: it is neither gone nor refused."""
    return Unavailable(f"the credentials are refused with status {error.status}: {error.body}")


def _secret(reveal: Callable[[], str]) -> str:
    """A secret read anew, so that a changed file needs no restart; a missing one can be mended."""
    try:
        return reveal()
    except ConfigError as error:
        raise Unavailable(str(error)) from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
