"""Sakari's sandbox against the vendor's document: every operation, request and answer."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.sandbox.sakari_api import SakariApi
from pipeline.sandbox.state import SandboxState
from tests.contract.sandbox_deviations import SAKARI, SAKARI_REQUESTS
from tests.contract.sandbox_world import AT, CREDENTIALS, Case, World, open_world
from tests.contract.vendor_docs import Document

ACCOUNT = {"accountId": "$account"}
CONTACT = ACCOUNT | {"contactId": "$contact"}
CONVERSATION = ACCOUNT | {"conversationId": "$conversation"}
TEMPLATE = ACCOUNT | {"templateId": "$template"}
CAMPAIGN = ACCOUNT | {"campaignId": "$campaign"}
MOBILE = {"number": "202-555-0199", "country": "US"}
CSV = "country,firstName,email,mobile,jobTitle\nUS,Joe,joe@example.com,202-555-0177,mover\nUS,X,,1,\n"

CASES = (
    Case(op="auth.token", body=CREDENTIALS),
    Case(op="contacts.fetchAll", params=ACCOUNT, query={"offset": "0", "limit": "100", "firstName": "ad"}),
    Case(op="contacts.create", params=ACCOUNT, body={"firstName": "Bob", "mobile": MOBILE}, status=201),
    Case(
        op="contacts.create",
        params=ACCOUNT,
        query={"mergeStrategy": "append"},
        body=CSV,
        content_type="text/csv",
        status=201,
        note="csv",
    ),
    Case(op="contacts.fetch", params=CONTACT),
    Case(op="contacts.update", params=CONTACT, body={"lastName": "Changed"}),
    Case(op="contacts.remove", params=CONTACT),
    Case(op="conversations.fetchAll", params=ACCOUNT, query={"limit": "1"}),
    Case(op="conversations.fetch", params=CONVERSATION),
    Case(op="conversations.close", params=CONVERSATION),
    Case(op="messages.fetchAll", params=ACCOUNT, query={"contactId": "$contact"}),
    Case(op="messages.fetch", params=ACCOUNT | {"messageId": "$message"}),
    Case(
        op="messages.send",
        params=ACCOUNT,
        body={"contacts": [{"id": "$contact"}, {"mobile": {"number": "1"}}], "template": "Hi", "type": "SMS"},
    ),
    Case(op="templates.fetchAll", params=ACCOUNT, query={"name": "gree"}),
    Case(
        op="templates.create", params=ACCOUNT, body={"name": "N", "template": "T", "type": "SMS"}, status=201
    ),
    Case(op="templates.fetch", params=TEMPLATE),
    Case(op="templates.update", params=TEMPLATE, body={"name": "Other"}),
    Case(op="templates.remove", params=TEMPLATE),
    Case(op="campaigns.fetchAll", params=ACCOUNT),
    Case(op="campaigns.create", params=ACCOUNT, body={"trigger": {"code": "S"}, "template": "T"}, status=201),
    Case(op="campaigns.fetch", params=CAMPAIGN),
    Case(op="campaigns.update", params=CAMPAIGN, body={"template": "Other"}),
    Case(op="campaigns.remove", params=CAMPAIGN),
    Case(op="webhooks.fetchAll", params=ACCOUNT),
    Case(
        op="webhooks.subscribe",
        params=ACCOUNT,
        body={"url": "http://127.0.0.1:9/new", "eventTypes": ["message-sent", "list-opt-in"]},
    ),
    Case(op="webhooks.unsubscribe", params=ACCOUNT | {"url": "$callback"}, status=204),
    Case(op="tools.shareFile", body=b"a picture", content_type="application/octet-stream"),
)
REFUSED = (
    Case(op="contacts.fetchAll", params=ACCOUNT, query={"limit": "101"}, status=400, note="limit"),
    Case(op="templates.fetchAll", params=ACCOUNT, token="expired", status=401, note="token"),
    Case(op="conversations.fetchAll", params={"accountId": "other"}, status=403, note="account"),
    Case(op="tools.shareFile", body=b"", content_type="application/octet-stream", status=400, note="empty"),
)


@pytest.fixture
def document(vendor_docs: Path) -> Document:
    """Sakari's document with what is known of the wire."""
    return Document(vendor_docs / "sakari" / "openapi-1.0.1.yaml", SAKARI)


def test_every_operation_has_a_route_and_a_case(document: Document) -> None:
    """The vendor's 26 operations, the sandbox's routes and the cases below name the same operations."""
    documented = {(each.id, each.method, each.path) for each in document.operations.values()}
    routes = {(each.id, each.method, each.path) for each in SakariApi(SandboxState().sakari).operations()}
    assert len(documented) == 26
    assert documented <= routes
    assert {case.op for case in CASES} == set(document.operations)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_request_and_answer_are_as_documented(case: Case, document: Document, world: World) -> None:
    """A documented request gets an answer of the documented status and shape, and nothing undocumented."""
    operation = document.operations[case.op]
    exchange = await world.sakari(operation.method, operation.path, case)
    known, _ = SAKARI_REQUESTS.get(case.op, ("", ""))
    asked = operation.request_findings(exchange.query, exchange.headers, exchange.body)
    assert [finding for finding in asked if finding != known] == []
    assert (exchange.status, operation.answer_findings(exchange.status, exchange.answer)) == (case.status, [])


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_refusals_have_the_documented_error(case: Case, document: Document, world: World) -> None:
    """A refusal answers {success: false, error: {code, message}} as ErrorResponse says."""
    operation = document.operations[case.op]
    exchange = await world.sakari(operation.method, operation.path, case)
    assert (exchange.status, operation.answer_findings(exchange.status, exchange.answer)) == (case.status, [])
    assert exchange.answer["success"] is False
    assert exchange.answer["error"]["code"]


@pytest.mark.parametrize("answer", ["current", "older"])
async def test_both_renderings_of_a_sending_are_known(answer: str, document: Document, world: World) -> None:
    """The older rendering of messages.send validates as well as the current one."""
    world.account.send_answer = "older" if answer == "older" else "current"
    operation = document.operations["messages.send"]
    case = Case(op="messages.send", params=ACCOUNT, body={"contacts": [{"id": "$contact"}], "template": "Hi"})
    exchange = await world.sakari(operation.method, operation.path, case)
    assert operation.answer_findings(exchange.status, exchange.answer) == []
    assert ("queued" in exchange.answer["data"]) is (answer == "older")


async def test_both_renderings_of_a_page_are_known(document: Document, world: World) -> None:
    """A page with hasNext instead of totalCount validates, and says that there is more."""
    world.account.pagination = "hasNext"
    world.account.put_contact({"mobile": MOBILE}, at=AT)
    operation = document.operations["contacts.fetchAll"]
    case = Case(op="contacts.fetchAll", params=ACCOUNT, query={"limit": "1"})
    exchange = await world.sakari(operation.method, operation.path, case)
    assert operation.answer_findings(exchange.status, exchange.answer) == []
    assert exchange.answer["pagination"] == {"offset": 0, "limit": 1, "hasNext": True}


async def answers(world: World, document: Document) -> list[tuple[str, int, Any]]:
    """What every case is answered: operation, status, body."""
    told = []
    for case in CASES:
        operation = document.operations[case.op]
        exchange = await world.sakari(operation.method, operation.path, case)
        told.append((case.op, exchange.status, exchange.answer))
    return [each for each in told if each[2] is not None and each[1] < 300]


async def test_every_deviation_is_needed(document: Document, vendor_docs: Path) -> None:
    """Each listed deviation is seen in some answer: without it, the document alone would refuse one."""
    told = []
    for newer in (False, True):
        async with open_world() as world:
            if newer:
                world.account.send_answer = "older"
                world.account.pagination = "hasNext"
                world.account.subscription_answer = "page"
            told += await answers(world, document)
    for left_out in SAKARI:
        others = [each for each in SAKARI if each is not left_out]
        operations = Document(vendor_docs / "sakari" / "openapi-1.0.1.yaml", others).operations
        assert any(operations[op].answer_findings(status, body) for op, status, body in told), left_out


def test_a_wrong_answer_is_found(document: Document) -> None:
    """The validation is strict: a wrong type, an unknown property and a missing one are each a finding."""
    operation = document.operations["contacts.fetch"]
    wrong = {"success": "yes", "data": {"id": 7, "surprise": 1}}
    assert len(operation.answer_findings(200, wrong)) == 3
    assert operation.answer_findings(200, {"success": True}) == ["top-level data is missing"]
