"""A token is got once, renewed in time, and a rotating one is never lost."""

import asyncio
import base64
from typing import Any

import orjson
import pytest
from aiohttp import web

from pipeline.clients.api import Api
from pipeline.clients.http import Http
from pipeline.clients.tokens import OAuthTokens, SakariTokens, Sealer, StaticToken
from pipeline.errors import BrokerError, ConfigError, Rejected, Unavailable
from pipeline.events import Token
from pipeline.settings import SakariAccount, SakariApiSettings, SecretRef, UsersApiSettings, UsersLocation
from tests.unit.client_server import Handler, answering, door, serving, wide_open

SEALER = Sealer(b"k" * 32)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.s = 1_900_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.s


class Store:
    """A token store that may fail, and remembers the order of things."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.tokens: dict[str, Token] = {}
        self.failures = 0
        self.log = log if log is not None else []

    async def load(self, key: str) -> Token | None:
        """The token under *key*."""
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        """Keep it, unless it is to fail."""
        if self.failures:
            self.failures -= 1
            raise BrokerError("no leader")
        self.tokens[key] = token
        self.log.append("saved")


class Authority:
    """A server of rotating tokens: a refresh token is good once."""

    def __init__(self, refresh: str = "r0", expires_in: int = 86_399) -> None:
        self.refresh = refresh
        self.expires_in = expires_in
        self.issued = 0
        self.refused = 0
        self.reconnects = 200
        self.reconnections: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """The next pair for the refresh token of the last, or for the code of a reconnection."""
        if request.path == "/oauth/reconnect":
            self.reconnections.append(await request.json())
            return web.json_response({"authorizationCode": "code"}, status=self.reconnects)
        form = await request.post()
        if form.get("refresh_token", "") != self.refresh and form.get("code") != "code":
            self.refused += 1
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.issued += 1
        self.refresh = f"r{self.issued}"
        return web.json_response(
            {
                "access_token": f"a{self.issued}",
                "refresh_token": self.refresh,
                "expires_in": self.expires_in,
                "scope": "contacts.readonly users.readonly",
            }
        )


def secret(text: str) -> SecretRef:
    """A secret given as it is."""
    return SecretRef.model_validate({"value": text})


def oauth(http: Http, url: str, store: Store, clock: Clock, *, refresh: str = "r0") -> OAuthTokens:
    """OAuth tokens of a location that begins with *refresh*."""
    location = UsersLocation(
        location_id="loc", client_id=secret("id"), client_secret=secret("s"), refresh_token=secret(refresh)
    )
    settings = UsersApiSettings(base_url=url)
    return OAuthTokens(http, settings, location, tenant="acme", store=store, sealer=SEALER, clock=clock)


def client_credentials(http: Http, url: str, clock: Clock) -> SakariTokens:
    """Tokens of one Sakari account."""
    account = SakariAccount(account_id="acc", client_id=secret("id"), client_secret=secret("hush"))
    return SakariTokens(http, SakariApiSettings(base_url=url), account, clock)


def jwt(claims: dict[str, Any]) -> str:
    """A token with *claims*; its signature is nobody's."""
    parts = [b'{"alg":"RS256"}', orjson.dumps(claims), b"sig"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def counting(body: Any, calls: list[int]) -> Handler:
    """A handler that counts its calls."""

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.json_response(body)

    return handler


@pytest.mark.parametrize(
    ("token", "lives_s"),
    [
        (jwt({"exp": 1_900_000_600}), 600),
        (jwt({"iat": 5_000, "exp": 5_600}), 600),
        (jwt({"sub": "x"}), 3_600),
        ("opaque", 3_600),
        ("a.!.b", 3_600),
    ],
)
async def test_a_sakari_token_is_renewed_shortly_before_its_end(token: str, lives_s: int) -> None:
    """``exp`` of the JWT counts, less ``iat`` where it is given; without one an hour is assumed."""
    calls: list[int] = []
    clock = Clock()
    async with serving(counting({"access_token": token}, calls)) as url, door() as http:
        tokens = client_credentials(http, url, clock)
        await tokens.token()
        clock.s += lives_s - 61
        await tokens.token()
        assert len(calls) == 1
        clock.s += 1.1
        await tokens.token()
    assert len(calls) == 2


async def test_many_callers_need_one_request() -> None:
    """Whoever comes while a token is being fetched gets that one."""
    calls: list[int] = []
    async with serving(counting({"access_token": "t"}, calls)) as url, door() as http:
        tokens = client_credentials(http, url, Clock())
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(tokens.token(), name=f"caller {n}") for n in range(20)]
    assert {task.result() for task in asked} == {"t"}
    assert len(calls) == 1


async def test_many_callers_share_one_failure() -> None:
    """An authority that is down is asked once, not once per caller; the next to come asks again."""
    calls: list[int] = []

    async def failing(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(status=500)

    async with serving(failing) as url, door() as http:
        tokens = client_credentials(http, url, Clock())
        results = await asyncio.gather(*(tokens.token() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert len(calls) == 1
        with pytest.raises(Unavailable):
            await tokens.token()
    assert len(calls) == 2


async def test_a_cancelled_caller_leaves_the_work_to_the_next() -> None:
    """When the one who fetches is cancelled, another fetches instead; nobody hangs."""
    entered = asyncio.Event()

    async def slow_first(request: web.Request) -> web.Response:
        if not entered.is_set():
            entered.set()
            await asyncio.Event().wait()
        return web.json_response({"access_token": "t"})

    async with serving(slow_first) as url, door() as http, asyncio.timeout(5):
        tokens = client_credentials(http, url, Clock())
        async with asyncio.TaskGroup() as group:
            first = group.create_task(tokens.token(), name="first")
            await entered.wait()
            second = group.create_task(tokens.token(), name="second")
            first.cancel()
    assert second.result() == "t"


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_refused_credentials_are_no_verdict_on_the_request(status: int) -> None:
    """A token endpoint's 404 does not make a contact gone, nor its 400 a dead letter of a statistic."""
    async with serving(answering({"error": "invalid_client"}, status)) as url, door() as http:
        api = Api(http, client_credentials(http, url, Clock()), wide_open(), base_url=url)
        with pytest.raises(Unavailable, match="credentials are refused"):
            await api.found("GET", "/contacts/1", operation="contacts.fetch")
        with pytest.raises(Unavailable, match="credentials are refused"):
            await oauth(http, url, Store(), Clock()).token()


@pytest.mark.parametrize("body", [{}, {"access_token": ""}, {"access_token": 5}, [], None])
async def test_an_answer_without_a_token_is_unavailable(body: object) -> None:
    """A token answer of a wrong shape is told as such."""
    async with serving(answering(body)) as url, door() as http:
        with pytest.raises(Unavailable, match=r"auth\.token"):
            await client_credentials(http, url, Clock()).token()


async def test_a_refused_token_is_renewed_once() -> None:
    """After a 401 the call is made once more with another token; a second 401 is final."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": f"t{len(seen)}"})
        seen.append(request.headers["Authorization"])
        return web.json_response({"ok": 1}, status=401 if len(seen) < 2 or len(seen) > 2 else 200)

    async with serving(handler) as url, door() as http:
        api = Api(http, client_credentials(http, url, Clock()), wide_open(), base_url=url)
        assert (await api.call("GET", "/x", operation="x")).json == {"ok": 1}
        with pytest.raises(Rejected):
            await api.call("GET", "/x", operation="x")
    assert seen == ["Bearer t0", "Bearer t1", "Bearer t1", "Bearer t3"]


async def test_a_static_token_is_read_anew_when_it_is_refused() -> None:
    """A token file that was replaced needs no restart; one that was not is not tried twice."""
    values = ["old", "new"]
    tokens = StaticToken(lambda: values[0])
    assert await tokens.token() == "old"
    assert await tokens.renewed("old") == "old"
    values.pop(0)
    assert await tokens.token() == "old"
    assert await tokens.renewed("old") == "new"


async def test_a_secret_that_is_gone_can_be_mended() -> None:
    """A missing secret file holds one tenant up, it does not end the process."""

    def gone() -> str:
        raise ConfigError("secret file x is empty or missing")

    with pytest.raises(Unavailable, match="secret file x"):
        await StaticToken(gone).token()


async def test_a_new_refresh_token_is_stored_before_it_is_used() -> None:
    """Saving comes before any call with the new token, so that a crash leaves a token that works."""
    log: list[str] = []
    authority = Authority()

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/oauth/token":
            return await authority.answer(request)
        log.append(request.headers["Authorization"])
        return web.json_response({})

    async with serving(handler) as url, door() as http:
        tokens = oauth(http, url, Store(log), Clock())
        await Api(http, tokens, wide_open(), base_url=url).call("GET", "/x", operation="x")
    assert log == ["saved", "Bearer a1"]
    assert tokens.scopes == ("contacts.readonly", "users.readonly")


async def test_a_token_that_could_not_be_stored_is_not_used_and_not_lost() -> None:
    """When Kafka fails, the new token is kept and stored first thing at the next attempt."""
    authority, store = Authority(), Store()
    store.failures = 1
    async with serving(authority.answer) as url, door() as http:
        tokens = oauth(http, url, store, Clock())
        with pytest.raises(Unavailable, match="cannot be stored"):
            await tokens.token()
        assert await tokens.token() == "a1"
    assert (authority.issued, authority.refused) == (1, 0)
    assert store.log == ["saved"]


async def test_a_restart_goes_on_with_the_stored_token() -> None:
    """A new process uses the stored access token, and its refresh token when that has ended."""
    authority, store, clock = Authority(), Store(), Clock()
    async with serving(authority.answer) as url, door() as http:
        await oauth(http, url, store, clock).token()
        assert await oauth(http, url, store, clock).token() == "a1"
        clock.s += 90_000
        assert await oauth(http, url, store, clock).token() == "a2"
    assert (authority.issued, authority.refused) == (2, 0)


async def test_another_process_that_was_faster_is_followed() -> None:
    """A refresh token that someone else used is dead; what that one stored is used instead."""
    authority, store, clock = Authority(), Store(), Clock()
    async with serving(authority.answer) as url, door() as http:
        ours, theirs = oauth(http, url, store, clock), oauth(http, url, store, clock)
        first = await ours.token()
        assert await theirs.renewed(first) == "a2"
        assert await ours.renewed(first) == "a2"
    assert (authority.issued, authority.refused) == (2, 0)


async def test_a_lost_refresh_token_is_replaced_by_reconnecting() -> None:
    """An answer that never came cost the token; the second refusal in a row asks for a code, and goes on."""
    authority, store, clock = Authority(refresh="unknown to us"), Store(), Clock()
    async with serving(authority.answer) as url, door() as http:
        tokens = oauth(http, url, store, clock)
        with pytest.raises(Unavailable, match="credentials are refused"):
            await tokens.token()
        assert authority.reconnections == []  # another process may be about to store what it got
        assert await tokens.token() == "a1"
        assert await oauth(http, url, store, clock).token() == "a1"
    assert authority.reconnections == [{"clientKey": "id", "clientSecret": "s", "locationId": "loc"}]


async def test_where_reconnecting_is_refused_the_first_refusal_is_told() -> None:
    """An app that was uninstalled needs a person, who learns what the token endpoint said."""
    authority = Authority(refresh="unknown to us")
    authority.reconnects = 404
    async with serving(authority.answer) as url, door() as http:
        tokens = oauth(http, url, Store(), Clock())
        for _ in range(3):
            with pytest.raises(Unavailable, match="credentials are refused with status 400"):
                await tokens.token()
    assert authority.issued == 0


async def test_many_callers_use_a_refresh_token_once() -> None:
    """One refresher at a time: callers that were all refused share one renewal."""
    authority = Authority()
    async with serving(authority.answer) as url, door() as http:
        tokens = oauth(http, url, Store(), Clock())
        first = await tokens.token()
        renewed = await asyncio.gather(*(tokens.renewed(first) for _ in range(20)))
    assert set(renewed) == {"a2"}
    assert (authority.issued, authority.refused) == (2, 0)


async def test_a_new_refresh_token_in_the_settings_begins_anew() -> None:
    """What descends from another refresh token of the settings is no longer of use."""
    authority, store, clock = Authority(), Store(), Clock()
    async with serving(authority.answer) as url, door() as http:
        await oauth(http, url, store, clock).token()
        authority.refresh = "installed-again"
        assert await oauth(http, url, store, clock, refresh="installed-again").token() == "a2"
    assert authority.refused == 0


def test_what_is_sealed_opens_for_its_key_alone() -> None:
    """A sealed token hides its content, and opens neither for another key, place nor secret."""
    sealed = SEALER.seal(b"refresh-token", "acme|loc")
    assert SEALER.open(sealed, "acme|loc") == b"refresh-token"
    assert b"refresh" not in base64.urlsafe_b64decode(sealed)
    for sealer, text, place in [
        (Sealer(b"x" * 32), sealed, "acme|loc"),
        (SEALER, sealed, "acme|other"),
        (SEALER, sealed[:-8] + "AAAAAAA=", "acme|loc"),
        (SEALER, "!", "acme|loc"),
    ]:
        with pytest.raises(Unavailable, match="cannot be opened"):
            sealer.open(text, place)
