"""Both sandboxes with one of each resource, and a client that speaks to them by documented operations."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from pipeline.sandbox.http_servers import SandboxServers, sandbox_servers
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.users_state import UsersLocation

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
CALLBACK = "http://127.0.0.1:9/in/acme/secret?x=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One request and the status it must have; a text that begins with ``$`` stands for a `World` id, and ``op``
    is the operationId of the vendor's document.
    """

    op: str
    status: int = 200
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    version: str = "2021-07-28"
    token: str = "$token"
    note: str = ""

    def __str__(self) -> str:
        return f"{self.op} {self.note}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request as it was sent, and its answer."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    status: int
    answer: Any


@dataclass(slots=True, kw_only=True)
class World:
    """Where the sandboxes are, the ids of what they hold, and a client session."""

    servers: SandboxServers
    session: aiohttp.ClientSession
    account: SakariAccount
    location: UsersLocation
    sakari_ids: dict[str, str]
    users_ids: dict[str, str]

    async def sakari(self, method: str, path: str, case: Case) -> Exchange:
        """Send *case* to Sakari's sandbox."""
        headers = {"Authorization": f"Bearer {_filled(case.token, self.sakari_ids)}"}
        ids = self.sakari_ids
        return await self._send(method, self.servers.sakari_url + path, case, ids=ids, headers=headers)

    async def users(self, method: str, path: str, case: Case) -> Exchange:
        """Send *case* to the Users API's sandbox."""
        headers = {"Authorization": f"Bearer {_filled(case.token, self.users_ids)}"}
        headers |= {"Version": case.version} if case.version else {}
        ids = self.users_ids
        return await self._send(method, self.servers.users_url + path, case, ids=ids, headers=headers)

    async def _send(
        self, method: str, url: str, case: Case, *, ids: dict[str, str], headers: dict[str, str]
    ) -> Exchange:
        filled = {name: quote(_filled(value, ids), safe="") for name, value in case.params.items()}
        query = {name: _filled(value, ids) for name, value in case.query.items()}
        body = _filled(case.body, ids)
        sent = {"data": body} if case.content_type != "application/json" else {"json": body}
        typed = {"Content-Type": case.content_type} if isinstance(body, str | bytes) else {}
        target = URL(url.format(**filled), encoded=True).update_query(query)
        given: Any = sent if body is not None else {}
        async with self.session.request(method, target, headers=headers | typed, **given) as answer:
            told = await answer.json() if answer.content_type == "application/json" else None
            return Exchange(query=query, headers=headers, body=body, status=answer.status, answer=told)


def _filled(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return ids[value[1:]] if value.startswith("$") else value
    if isinstance(value, list):
        return [_filled(each, ids) for each in value]
    if isinstance(value, dict):
        return {name: _filled(each, ids) for name, each in value.items()}
    return value


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """A world until the block ends."""
    state = SandboxState(seed=1)
    account, sakari_ids = _sakari(state)
    location, users_ids = _users(state)
    async with sandbox_servers(state) as servers, aiohttp.ClientSession() as session:
        world = World(
            servers=servers,
            session=session,
            account=account,
            location=location,
            sakari_ids=sakari_ids,
            users_ids=users_ids,
        )
        token = await world.sakari("POST", "/oauth2/token", Case(op="auth.token", body=CREDENTIALS, token=""))
        sakari_ids["token"] = token.answer["access_token"]
        yield world


CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "$client_id",
    "client_secret": "$client_secret",
}


def _sakari(state: SandboxState) -> tuple[SakariAccount, dict[str, str]]:
    account = state.sakari.add_account(name="acme")
    mobile = {"number": "202-555-0101", "country": "US"}
    fields = {"firstName": "Ada", "lastName": "Example", "email": "ada@example.com", "mobile": mobile}
    contact = account.put_contact(fields, at=AT)
    template = account.put_template({"name": "Greeting", "template": "Hi {{{firstName}}}", "type": "SMS"})
    told = {"contact_id": contact.id, "outgoing": True, "at": AT, "job": {"id": "j1"}}
    message = account.add_message(text="Hi Ada", template=template.id, **told)  # type: ignore[arg-type]
    error = {"code": "MSG-010", "description": "Unreachable"}
    account.set_status(message.id, "undelivered", at=AT, error=error, price=0.0125)
    account.subscribe(CALLBACK, ["message-sent", "message-status"])
    ids = {
        "account": account.id,
        "client_id": account.client_id,
        "client_secret": account.client_secret,
        "contact": contact.id,
        "message": message.id,
        "conversation": message.value["conversation"]["id"],
        "template": template.id,
        "campaign": account.put_campaign({"name": "Spring", "trigger": {"code": "M"}, "template": "Hi"}).id,
        "callback": CALLBACK,
    }
    return account, ids


def _users(state: SandboxState) -> tuple[UsersLocation, dict[str, str]]:
    users = state.users
    location = users.add_location("Main street")
    phone = {"firstName": "Ada", "phone": "+12025550101", "email": "ada@example.com", "country": "US"}
    person = {"firstName": "Bob", "lastName": "Builder", "email": "bob@example.com", "phone": "+12025550102"}
    tag = location.put_location_tag("vip", at=AT, colour="#ff0000", description="Very important")
    profile = location.put_account("Page").value["profileId"]
    field = location.put_custom_field({"name": "Score", "dataType": "TEXT"})
    ids = {
        "company": users.company_id,
        "location": location.id,
        "client_id": users.client_id,
        "client_secret": users.client_secret,
        "token": users.add_static_token(location.id),
        "company_token": users.add_static_token(),
        "code": users.add_code(location.id),
        "contact": location.put_contact({**phone, "tags": ["vip"]}, at=AT).id,
        "tag": tag.id,
        "profile": profile,
        "user": users.put_user({**person, "locationIds": [location.id]}).id,
        "catalogue_tag": next(iter(location.catalogue)),
        "custom_value": location.put_custom_value("engagement/all/sent", "7").id,
        "custom_field": field.id,
        "app": users.app_id,
    }
    location.set_custom_fields(ids["contact"], [{"id": field.id, "value": "42"}], at=AT)
    location.set_dnd(ids["contact"], dnd=True, at=AT)
    return location, ids
