"""What the clients send is what the vendors' documents describe, and the sandboxes take it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from pipeline.clients.http import Answer, Http, open_session
from pipeline.clients.sakari import SakariClient
from pipeline.clients.tokens import OAuthTokens, SakariTokens, Sealer, StaticToken
from pipeline.clients.users import UsersClient
from pipeline.events import Token
from pipeline.settings import SakariAccount, SakariApiSettings, SecretRef, UsersApiSettings, UsersLocation
from tests.contract.sandbox_deviations import CONTACTS, SAKARI, SOCIAL, USERS
from tests.contract.sandbox_world import CALLBACK, World
from tests.contract.vendor_docs import Document, DocumentedOperation

USERS_FILES = {
    "social-media-posting.json": SOCIAL,
    "oauth.json": USERS,
    "users.json": USERS,
    "contacts.json": CONTACTS,
    "locations.json": USERS,
}


class Sent(NamedTuple):
    """A request as a client sent it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class Recorder(Http):
    """The door, with a list of what went through it."""

    def __init__(self, session: Any) -> None:
        super().__init__(session, timeout_s=10)
        self.sent: list[Sent] = []

    async def request(self, method: str, url: str, **given: Any) -> Answer:
        """Send and note a request."""
        body = given.get("json") or given.get("form")
        note = Sent(method, urlsplit(url).path, given.get("query") or {}, given.get("headers") or {}, body)
        self.sent.append(note)
        return await super().request(method, url, **given)


class Memory:
    """A token store."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}

    async def load(self, key: str) -> Token | None:
        """The token under *key*."""
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        """Keep *token*."""
        self.tokens[key] = token


def secret(text: str) -> SecretRef:
    """A secret given as it is."""
    return SecretRef.model_validate({"value": text})


@asynccontextmanager
async def recorder() -> AsyncIterator[Recorder]:
    """A recording door."""
    async with open_session() as session:
        yield Recorder(session)


def sakari_client(world: World, http: Http) -> SakariClient:
    """A client of the world's Sakari account, by its credentials."""
    ids = world.sakari_ids
    settings = SakariApiSettings(base_url=world.servers.sakari_url)
    account = SakariAccount(
        account_id=ids["account"],
        client_id=secret(ids["client_id"]),
        client_secret=secret(ids["client_secret"]),
    )
    return SakariClient(http, SakariTokens(http, settings, account), settings, ids["account"])


def users_client(world: World, http: Http) -> UsersClient:
    """A client of the world's location, by its static token."""
    ids = world.users_ids
    settings = UsersApiSettings(base_url=world.servers.users_url)
    tokens = StaticToken(lambda: ids["token"])
    return UsersClient(http, tokens, settings, ids["location"], company_id=ids["company"])


def findings(documents: list[Document], sent: Sent, expected: str) -> list[str]:
    """What the documents have against *sent*, which should be the operation *expected*."""
    matching = [
        operation
        for document in documents
        for operation in document.operations.values()
        if operation.method == sent.method and _matches(operation, sent.path)
    ]
    if expected not in {operation.id for operation in matching}:
        return [f"{sent.method} {sent.path} is not {expected}"]
    (operation,) = [each for each in matching if each.id == expected]
    return operation.request_findings(sent.query, sent.headers, sent.body)


def _matches(operation: DocumentedOperation, path: str) -> bool:
    pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(operation.path))
    return re.fullmatch(pattern, path) is not None


SakariCall = Callable[[SakariClient, dict[str, str]], Awaitable[object]]
SAKARI_CALLS: dict[str, SakariCall] = {
    "contacts.fetchAll": lambda client, _: client.contacts(),
    "contacts.fetch": lambda client, ids: client.contact(ids["contact"]),
    "messages.fetchAll": lambda client, _: client.messages(),
    "messages.fetch": lambda client, ids: client.message(ids["message"]),
    "conversations.fetchAll": lambda client, _: client.conversations(),
    "conversations.fetch": lambda client, ids: client.conversation(ids["conversation"]),
    "webhooks.fetchAll": lambda client, _: client.webhooks(),
    "webhooks.unsubscribe": lambda client, _: client.unsubscribe(CALLBACK),
}

UsersCall = Callable[[UsersClient, dict[str, str]], Awaitable[object]]
USERS_CALLS: dict[str, UsersCall] = {
    "get-tags-location-id": lambda client, _: client.tags(),
    "get-tags-by-ids": lambda client, ids: client.tag_details([ids["tag"]]),
    "get-account": lambda client, _: client.accounts(),
    "get-social-media-statistics": lambda client, ids: client.statistics([ids["profile"]]),
    "search-users": lambda client, _: client.users(),
    "get-user": lambda client, ids: client.user(ids["user"]),
    "search-contacts-advanced": lambda client, _: client.contacts(),
    "get-contact": lambda client, ids: client.contact(ids["contact"]),
    "update-contact": lambda client, ids: client.put_contact_fields(
        ids["contact"], {ids["custom_field"]: "1"}
    ),
    "get-custom-values": lambda client, _: client.custom_values(),
    "create-custom-value": lambda client, _: client.create_custom_value("a/b", "1"),
    "delete-custom-value": lambda client, ids: client.delete_custom_value(ids["custom_value"]),
    "update-custom-value": lambda client, ids: client.update_custom_value(ids["custom_value"], "a", "1"),
    "get-custom-fields": lambda client, _: client.custom_fields(),
    "create-custom-field": lambda client, _: client.create_custom_field("engagement_score"),
}


@pytest.mark.parametrize("operation", SAKARI_CALLS)
async def test_sakaris_client_sends_what_the_document_describes(
    operation: str, world: World, vendor_docs: Path
) -> None:
    """Each call is the operation of its name, well formed, with a token by client credentials before it."""
    document = Document(vendor_docs / "sakari" / "openapi-1.0.1.yaml", SAKARI)
    async with recorder() as http:
        await SAKARI_CALLS[operation](sakari_client(world, http), world.sakari_ids)
    token, call = http.sent
    assert findings([document], token, "auth.token") == []
    assert findings([document], call, operation) == []


@pytest.mark.parametrize("operation", USERS_CALLS)
async def test_the_users_apis_client_sends_what_the_documents_describe(
    operation: str, world: World, vendor_docs: Path
) -> None:
    """Each call is the operation of its name, well formed, with the version its document asks for."""
    documents = [Document(vendor_docs / "users-api" / name, known) for name, known in USERS_FILES.items()]
    async with recorder() as http:
        await USERS_CALLS[operation](users_client(world, http), world.users_ids)
    (call,) = http.sent
    assert findings(documents, call, operation) == []


async def test_a_subscription_is_sent_as_it_works_on_the_wire(world: World) -> None:
    """``webhooks.subscribe`` takes ``url``, though its document requires ``callbackUrl`` (FACTS §1)."""
    async with recorder() as http:
        client = sakari_client(world, http)
        await client.subscribe("http://127.0.0.1:9/in", ("message-sent",))
        urls = [each.get("url") or each.get("destination") for each in await client.webhooks()]
    assert "http://127.0.0.1:9/in" in urls


async def test_a_refresh_is_sent_as_a_form(world: World, vendor_docs: Path) -> None:
    """``POST /oauth/token`` is form-encoded, with every field that its document requires."""
    document = Document(vendor_docs / "users-api" / "oauth.json", USERS)
    async with recorder() as http:
        tokens = await _installed(world, http)
        http.sent.clear()
        assert await tokens.token()
    (call,) = http.sent
    assert findings([document], call, "get-access-token") == []


async def test_both_dialects_of_statistics_are_read_and_written(world: World) -> None:
    """The catalogue's submission is read back; the vendor's query gives results."""
    async with recorder() as http:
        client = users_client(world, http)
        body = {"statisticsId": "s1", "locationId": client.location_id, "timestamp": "2030-01-01T00:00:00Z"}
        await client.submit_statistics({**body, "userCount": 1, "metrics": {"sent": 1}})
        assert "metrics" in await client.location_statistics()
        assert "totals" in await client.statistics([world.users_ids["profile"]])
    assert world.location.submissions["s1"].body["metrics"] == {"sent": 1}


async def test_granted_scopes_are_compared_with_the_needed_ones(world: World) -> None:
    """A token that says its scopes lacks none in the sandbox; a static one says nothing."""
    async with recorder() as http:
        assert await users_client(world, http).check("vendor") == frozenset()
        tokens = await _installed(world, http)
        settings = UsersApiSettings(base_url=world.servers.users_url)
        client = UsersClient(http, tokens, settings, world.users_ids["location"])
        assert await client.check("catalogue") == frozenset()
        assert tokens.scopes


async def _installed(world: World, http: Http) -> OAuthTokens:
    """OAuth tokens of the world's location, just after its installation."""
    ids = world.users_ids
    given = {"client_id": ids["client_id"], "client_secret": ids["client_secret"], "code": ids["code"]}
    form = {**given, "grant_type": "authorization_code", "user_type": "Location"}
    url = f"{world.servers.users_url}/oauth/token"
    answer = await http.request("POST", url, operation="oauth.token", form=form)
    location = UsersLocation(
        location_id=ids["location"],
        client_id=secret(ids["client_id"]),
        client_secret=secret(ids["client_secret"]),
        refresh_token=secret(answer.json["refresh_token"]),
    )
    settings = UsersApiSettings(base_url=world.servers.users_url)
    return OAuthTokens(http, settings, location, tenant="acme", store=Memory(), sealer=Sealer(b"k" * 32))
