"""The servers of both sandboxes: tokens, scopes, limits, faults, call-backs; over real connections."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from pipeline.sandbox.faults import FaultKind, FaultRule
from pipeline.sandbox.http_servers import Place, SandboxServers, SandboxSettings, sandbox_servers
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Hook, SandboxState
from pipeline.sandbox.users_api import Limits
from pipeline.sandbox.users_state import UsersLocation

START = datetime(2030, 1, 1, tzinfo=UTC)
VERSION = {"Version": "2021-07-28"}
MOBILE = {"number": "202-555-0101", "country": "US"}


@dataclass(slots=True)
class Bench:
    """Both servers, one account, one location, a client, and a clock that a test moves."""

    servers: SandboxServers
    session: aiohttp.ClientSession
    account: SakariAccount
    location: UsersLocation
    hooks: list[Hook]
    clock: list[datetime]
    received: list[Any] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        """Let the servers' clock go on."""
        self.clock[0] += timedelta(seconds=seconds)

    async def sakari_token(self) -> str:
        """A fresh access token of the account."""
        body = {"grant_type": "client_credentials", "client_id": self.account.client_id}
        body["client_secret"] = self.account.client_secret
        async with self.session.post(f"{self.servers.sakari_url}/oauth2/token", json=body) as answer:
            return str((await answer.json())["access_token"])

    async def sakari(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """Status and body of a call within the account."""
        url = f"{self.servers.sakari_url}/v1/accounts/{self.account.id}{path}"
        return await self._call(method, url, {"Authorization": f"Bearer {token}"}, {"json": body})

    async def users(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """Status and body of a call of the Users API."""
        headers = {"Authorization": f"Bearer {token}", **VERSION}
        return await self._call(method, f"{self.servers.users_url}{path}", headers, {"json": body})

    async def oauth(self, **form: str) -> tuple[int, Any]:
        """Status and body of ``POST /oauth/token`` with the app's own credentials."""
        state = self.servers.state.users
        data = {"client_id": state.client_id, "client_secret": state.client_secret, **form}
        return await self._call("POST", f"{self.servers.users_url}/oauth/token", {}, {"data": data})

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], sent: Mapping[str, Any]
    ) -> tuple[int, Any]:
        given = {name: value for name, value in sent.items() if value is not None}
        async with self.session.request(method, url, headers=headers, **given) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if raw else None


@asynccontextmanager
async def bench(settings: SandboxSettings | None = None) -> AsyncIterator[Bench]:
    """A bench until the block ends."""
    state, hooks, clock = SandboxState(seed=1), list[Hook](), [START]
    account = state.sakari.add_account(name="acme")
    location = state.users.add_location("Main street")
    async with AsyncExitStack() as stack:
        opened = sandbox_servers(state, settings=settings, clock=lambda: clock[0], on_hooks=hooks.extend)
        servers = await stack.enter_async_context(opened)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Bench(servers, session, account, location, hooks, clock)


@asynccontextmanager
async def listening(received: list[Any]) -> AsyncIterator[str]:
    """A receiver that keeps what it is sent."""

    async def answer(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/in", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    finally:
        await runner.cleanup()


async def test_others_are_told_the_name_that_reaches_it() -> None:
    """It listens on every address, and the URLs that it gives away hold the name that it was given."""
    place = Place(host="0.0.0.0", advertised_host="localhost")
    async with bench(SandboxSettings(place=place)) as world:
        url = world.servers.users_url
        assert url.startswith("http://localhost:")
        async with world.session.get(url.replace("localhost", "127.0.0.2")) as answer:
            assert answer.status == 404


async def test_a_sakari_token_is_a_jwt_that_expires() -> None:
    """Exp of the JWT says when the token stops working, to the second; the answer has no expires_in."""
    async with bench(SandboxSettings(sakari_token_ttl_s=60)) as at:
        token = await at.sakari_token()
        part = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        assert claims["exp"] == int(START.timestamp()) + 60
        assert (await at.sakari("GET", "/contacts", token))[0] == 200
        at.pass_time(60)
        assert (await at.sakari("GET", "/contacts", token))[0] == 401


async def test_a_refresh_kills_both_old_tokens() -> None:
    """After a refresh neither the old access token nor the old refresh token works (FACTS §2)."""
    async with bench() as at:
        code = at.servers.state.users.add_code(at.location.id)
        _, first = await at.oauth(grant_type="authorization_code", code=code)
        _, second = await at.oauth(grant_type="refresh_token", refresh_token=first["refresh_token"])
        path = f"/users/?locationId={at.location.id}"
        assert (await at.users("GET", path, first["access_token"]))[0] == 401
        assert (await at.users("GET", path, second["access_token"]))[0] == 200
        again = await at.oauth(grant_type="refresh_token", refresh_token=first["refresh_token"])
        assert (again[0], again[1]["error"]) == (400, "invalid_grant")


async def test_an_expired_token_can_still_be_refreshed() -> None:
    """The refresh token outlives its access token."""
    async with bench() as at:
        code = at.servers.state.users.add_code(at.location.id)
        _, first = await at.oauth(grant_type="authorization_code", code=code)
        at.pass_time(first["expires_in"] + 1)
        await at.oauth(grant_type="client_credentials")
        assert (await at.oauth(grant_type="refresh_token", refresh_token=first["refresh_token"]))[0] == 200


async def test_a_code_works_once() -> None:
    """An authorization code is used up by its exchange."""
    async with bench() as at:
        code = at.servers.state.users.add_code(at.location.id)
        answers = [await at.oauth(grant_type="authorization_code", code=code) for _ in range(2)]
        assert [status for status, _ in answers] == [200, 400]


async def test_a_missing_scope_and_another_location_are_refused() -> None:
    """A token without the scope gets 401, one of another location 403."""
    async with bench() as at:
        users = at.servers.state.users
        narrow = users.add_static_token(at.location.id, ["users.readonly"])
        foreign = users.add_static_token(users.add_location("Elsewhere").id)
        path = f"/social-media-posting/{at.location.id}/tags"
        assert [(await at.users("GET", path, token))[0] for token in (narrow, foreign)] == [401, 403]


async def test_requests_over_the_limit_are_throttled_per_location() -> None:
    """The burst limit answers 429 for its location only, until the interval is over."""
    async with bench(SandboxSettings(users_limits=Limits(burst=2))) as at:
        other = at.servers.state.users.add_location("Elsewhere").id
        token = at.servers.state.users.add_static_token()
        here, there = f"/locations/{at.location.id}/tags", f"/locations/{other}/tags"
        statuses = [(await at.users("GET", path, token))[0] for path in (here, here, here, there)]
        at.pass_time(10)
        assert statuses == [200, 200, 429, 200]
        assert (await at.users("GET", here, token))[0] == 200


async def test_the_daily_limit_holds_past_the_interval() -> None:
    """The daily limit answers 429 until the next day."""
    async with bench(SandboxSettings(users_limits=Limits(daily=1))) as at:
        token = at.servers.state.users.add_static_token(at.location.id)
        path = f"/locations/{at.location.id}/tags"
        statuses = []
        for seconds in (0, 60, 86_400):
            at.pass_time(seconds)
            statuses.append((await at.users("GET", path, token))[0])
        assert statuses == [200, 429, 200]


async def test_a_sent_message_calls_back() -> None:
    """webhooks.subscribe is called back for what messages.send does, and the ledger's observer is told."""
    received: list[Any] = []
    async with listening(received) as url, bench() as at:
        token = await at.sakari_token()
        await at.sakari("POST", "/webhooks", token, {"url": url, "eventTypes": ["message-sent"]})
        body = {"contacts": [{"mobile": MOBILE}], "template": "Hi"}
        _, sent = await at.sakari("POST", "/messages", token, body)
        async with asyncio.timeout(5):
            await at.servers.webhooks.drain()
        assert [each["payload"]["job"]["id"] for each in received] == [sent["data"]["jobId"]]
        assert [hook.kind for hook in at.hooks] == ["contact-created", "conversation-started", "message-sent"]


async def test_who_opted_out_is_not_sent_to() -> None:
    """messages.send tells blocked contacts and wrong numbers as invalid, and sends them nothing."""
    async with bench() as at:
        contact = at.account.put_contact({"mobile": MOBILE}, at=START).id
        at.account.set_opt(contact, out=True, at=START)
        body = {"contacts": [{"id": contact}, {"mobile": {"number": "1"}}], "template": "Hi"}
        _, sent = await at.sakari("POST", "/messages", await at.sakari_token(), body)
        codes = [each["error"]["code"] for each in sent["data"]["invalid"]]
        assert (codes, sent["data"]["valid"], len(at.account.messages)) == (["CONT-010", "CONT-001"], 0, 0)


@pytest.mark.parametrize(
    ("strategy", "tags"),
    [("append", ["a", "b"]), ("core", ["a"]), ("remove", ["b"])],
)
async def test_a_merge_strategy_decides_over_tags(strategy: str, tags: list[str]) -> None:
    """A contact with a known mobile is merged: tags added, left alone, or replaced."""
    async with bench() as at:
        fields = {"firstName": "Ada", "mobile": MOBILE, "tags": [{"tag": "a", "visible": True}]}
        at.account.put_contact(fields, at=START)
        body = {"firstName": "Eve", "mobile": MOBILE, "tags": [{"tag": "b"}]}
        path = f"/contacts?mergeStrategy={strategy}"
        _, answer = await at.sakari("POST", path, await at.sakari_token(), body)
        assert [tag["tag"] for tag in answer["data"]["tags"]] == tags
        assert (answer["data"]["firstName"], len(at.account.contacts)) == ("Eve", 1)


async def test_a_search_cursor_visits_every_contact_once() -> None:
    """Following searchAfter of the last contact ends after each contact was seen exactly once."""
    async with bench() as at:
        known = {at.location.put_contact({"firstName": f"{n}"}, at=START).id for n in range(7)}
        token = at.servers.state.users.add_static_token(at.location.id)
        seen: list[str] = []
        cursor: list[Any] = []
        while len(seen) < 8:
            body = {"locationId": at.location.id, "pageLimit": 3, "searchAfter": cursor}
            _, page = await at.users("POST", "/contacts/search", token, body)
            if not page["contacts"]:
                break
            seen += [contact["id"] for contact in page["contacts"]]
            cursor = page["contacts"][-1]["searchAfter"]
        assert (len(seen), set(seen)) == (7, known)


async def test_a_submission_is_kept_and_read_back() -> None:
    """The catalogue dialect: what POST statistics submits, the readonly GET answers."""
    async with bench() as at:
        token = at.servers.state.users.add_static_token(at.location.id)
        body = {"statisticsId": "s1", "locationId": at.location.id, "metrics": {"sent": 3}}
        status, _ = await at.users("POST", "/social-media-posting/statistics", token, body)
        path = f"/socialplanner/statistics.readonly?locationId={at.location.id}&statisticsId=s1"
        assert status == 201
        assert await at.users("GET", path, token) == (200, body)


@pytest.mark.parametrize(
    ("kind", "status"),
    [(FaultKind.THROTTLED, 429), (FaultKind.EXPIRED_TOKEN, 401), (FaultKind.LATENCY, 200)],
)
async def test_a_fault_strikes_one_call(kind: FaultKind, status: int) -> None:
    """A fault for the next call changes that call's answer; a static token works again afterwards."""
    async with bench() as at:
        token = at.servers.state.users.add_static_token(at.location.id)
        at.servers.faults.put(FaultRule(kind=kind, operation="get-location-tags", next_calls=1, delay_s=0.01))
        path = f"/locations/{at.location.id}/tags"
        assert [(await at.users("GET", path, token))[0] for _ in range(2)] == [status, 200]


@pytest.mark.parametrize("kind", [FaultKind.TRUNCATED, FaultKind.INVALID_JSON])
async def test_a_broken_body_is_no_json(kind: FaultKind) -> None:
    """Truncated and invalid JSON say they are JSON and are not."""
    async with bench() as at:
        at.servers.faults.put(FaultRule(kind=kind))
        with pytest.raises(orjson.JSONDecodeError):
            await at.sakari("GET", "/contacts", "any")


@pytest.mark.parametrize(("after", "kept"), [(False, 0), (True, 1)])
async def test_a_reset_can_come_after_the_effect(after: bool, kept: int) -> None:
    """A cut connection leaves the caller without an answer, with or without the effect of the call."""
    async with bench() as at:
        token = await at.sakari_token()
        at.servers.faults.put(
            FaultRule(kind=FaultKind.RESET, operation="contacts.create", after_effect=after)
        )
        with pytest.raises(aiohttp.ClientError):
            await at.sakari("POST", "/contacts", token, {"mobile": MOBILE})
        assert len(at.account.contacts) == kept


@pytest.mark.parametrize(("kind", "again"), [(FaultKind.EXPIRED_TOKEN, 200), (FaultKind.REVOKED_TOKEN, 400)])
async def test_a_revoked_token_cannot_be_refreshed(kind: FaultKind, again: int) -> None:
    """An expired access token can be refreshed, a revoked one's refresh token is dead as well."""
    async with bench() as at:
        code = at.servers.state.users.add_code(at.location.id)
        _, first = await at.oauth(grant_type="authorization_code", code=code)
        at.servers.faults.put(FaultRule(kind=kind, operation="get-location-tags", next_calls=1))
        status, _ = await at.users("GET", f"/locations/{at.location.id}/tags", first["access_token"])
        refreshed = await at.oauth(grant_type="refresh_token", refresh_token=first["refresh_token"])
        assert (status, refreshed[0]) == (401, again)


@pytest.mark.parametrize("headers", [True, False])
async def test_a_429_comes_with_and_without_headers(headers: bool) -> None:
    """Retry-After and the vendor's rate headers are there exactly if the rule says so."""
    async with bench() as at:
        at.servers.faults.put(FaultRule(kind=FaultKind.THROTTLED, headers=headers, retry_after_s=3))
        async with at.session.get(f"{at.servers.users_url}/users/") as answer:
            assert answer.status == 429
            assert answer.headers.get("Retry-After") == ("3" if headers else None)
            assert answer.headers.get("X-RateLimit-Remaining") == ("0" if headers else None)


async def test_faults_are_switched_while_running() -> None:
    """PUT adds a rule, GET lists it, DELETE removes it, and a wrong one is refused with what is wrong."""
    async with bench() as at:
        url = f"{at.servers.users_url}/_sandbox/faults"
        async with at.session.put(url, json={"kind": "throttled", "operation": "*"}) as answer:
            identity = (await answer.json())["id"]
        async with at.session.get(url) as answer:
            assert [rule["id"] for rule in (await answer.json())["faults"]] == [identity]
        async with at.session.delete(url, params={"id": str(identity)}) as answer:
            assert (await answer.json(), at.servers.faults.listed()) == ({"removed": True}, [])
        async with at.session.put(url, json={"kind": "fire"}) as answer:
            assert (answer.status, "fire" in (await answer.json())["error"]) == (400, True)


async def test_a_failure_of_the_block_is_raised_as_it_is() -> None:
    """What the caller's block raises leaves sandbox_servers unwrapped."""
    with pytest.raises(ZeroDivisionError):
        async with sandbox_servers(SandboxState()):
            raise ZeroDivisionError
