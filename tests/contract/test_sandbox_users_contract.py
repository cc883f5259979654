"""The Users API's sandbox against the vendor's documents: every documented operation, request and answer."""

from pathlib import Path

import pytest

from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.users_api import UsersApi
from tests.contract.sandbox_deviations import CONTACTS, OPTIONAL, SOCIAL, USERS
from tests.contract.sandbox_world import CREDENTIALS, Case, World
from tests.contract.vendor_docs import Deviation, Document, DocumentedOperation

FILES: tuple[tuple[str, tuple[Deviation, ...]], ...] = (
    ("social-media-posting.json", SOCIAL),
    ("oauth.json", USERS),
    ("users.json", USERS),
    ("contacts.json", CONTACTS),
    ("locations.json", USERS),
)
#: told in a help article (155000003717) instead of the documents
RECONNECT = "reconnect"
#: routes of the catalogue dialect, which no document of the vendor has (FACTS §2)
CATALOGUE = {"statistics.readonly"}

HERE = {"locationId": "$location"}
CONTACT = {"contactId": "$contact"}
USER = {"userId": "$user"}
TAG = HERE | {"tagId": "$catalogue_tag"}
VALUE = HERE | {"id": "$custom_value"}
FIELD = HERE | {"id": "$custom_field"}
FORM = "application/x-www-form-urlencoded"
PERSON = {"firstName": "Eve", "lastName": "Example", "email": "eve@example.com", "password": "x" * 12}
NEW_USER = {
    "companyId": "$company",
    **PERSON,
    "type": "account",
    "role": "user",
    "locationIds": ["$location"],
}
CODE = {**CREDENTIALS, "grant_type": "authorization_code", "code": "$code", "user_type": "Location"}
COMPANY_TOKEN = "$company_token"

CASES = (
    Case(op="get-tags-location-id", params=HERE, query={"limit": "10", "skip": "0"}),
    Case(op="get-tags-by-ids", params=HERE, body={"tagIds": ["$tag"]}, status=201),
    Case(op="get-account", params=HERE),
    Case(op="get-social-media-statistics", query=HERE, body={"profileIds": ["$profile"]}, status=201),
    Case(op="get-access-token", body=CODE, content_type=FORM, version=""),
    Case(
        op="get-location-access-token",
        body={"companyId": "$company", "locationId": "$location"},
        content_type=FORM,
        token=COMPANY_TOKEN,
    ),
    Case(op="get-installed-location", query={"companyId": "$company", "appId": "$app"}, token=COMPANY_TOKEN),
    Case(op="search-users", query={"companyId": "$company", "locationId": "$location", "limit": "5"}),
    Case(op="filter-users-by-email", body={"companyId": "$company", "emails": "bob@example.com"}),
    Case(op="get-user-by-location", query=HERE),
    Case(op="create-user", body=NEW_USER, status=201),
    Case(op="get-user", params=USER),
    Case(op="update-user", params=USER, body={"lastName": "Changed"}),
    Case(op="delete-user", params=USER),
    Case(op="search-contacts-advanced", body={"locationId": "$location", "pageLimit": 10}),
    Case(op="create-contact", body={"locationId": "$location", "phone": "+12025550177"}, status=201),
    Case(op="upsert-contact", body={"locationId": "$location", "phone": "+12025550101", "firstName": "A"}),
    Case(op="get-contact", params=CONTACT),
    Case(
        op="update-contact",
        params=CONTACT,
        body={"customFields": [{"id": "$custom_field", "field_value": "9"}]},
    ),
    Case(op="delete-contact", params=CONTACT),
    Case(op="add-tags", params=CONTACT, body={"tags": ["new"]}, status=201),
    Case(op="remove-tags", params=CONTACT, body={"tags": ["vip"]}),
    Case(op="get-location-tags", params=HERE),
    Case(op="create-tag", params=HERE, body={"name": "fresh"}),
    Case(op="get-tag-by-id", params=TAG),
    Case(op="update-tag", params=TAG, body={"name": "renamed"}),
    Case(op="delete-tag", params=TAG),
    Case(op="get-custom-values", params=HERE),
    Case(op="create-custom-value", params=HERE, body={"name": "N", "value": "1"}, status=201),
    Case(op="get-custom-value", params=VALUE),
    Case(op="update-custom-value", params=VALUE, body={"name": "N", "value": "2"}),
    Case(op="delete-custom-value", params=VALUE),
    Case(op="get-custom-fields", params=HERE, query={"model": "contact"}),
    Case(op="create-custom-field", params=HERE, body={"name": "F", "dataType": "TEXT"}, status=201),
    Case(op="get-custom-field", params=FIELD),
    Case(op="update-custom-field", params=FIELD, body={"name": "F"}),
    Case(op="delete-custom-field", params=FIELD),
)
REFUSED = (
    Case(op="get-tags-location-id", params=HERE, token="unknown", status=401, note="token"),
    Case(op="get-tags-location-id", params=HERE, version="", status=400, note="version"),
    Case(op="get-tags-by-ids", params=HERE, body={}, status=422, note="body"),
    Case(op="get-social-media-statistics", query=HERE, body={"profileIds": []}, status=400, note="none"),
    Case(op="get-access-token", body={**CODE, "code": "used"}, content_type=FORM, status=400, note="code"),
    Case(op="search-users", query={"companyId": "other"}, status=422, note="company"),
    Case(
        op="create-contact",
        body={"locationId": "$location", "phone": "+12025550101"},
        status=400,
        note="twin",
    ),
)


@pytest.fixture
def operations(vendor_docs: Path) -> dict[str, DocumentedOperation]:
    """The operations of all five documents, with what is known of the wire."""
    documents = [Document(vendor_docs / "users-api" / name, deviations) for name, deviations in FILES]
    return {identity: each for document in documents for identity, each in document.operations.items()}


def test_every_route_is_documented_and_has_a_case(operations: dict[str, DocumentedOperation]) -> None:
    """Each route of the sandbox is the vendor's by id, method and path, and has a case below."""
    routes = {each.id: (each.method, each.path) for each in UsersApi(SandboxState().users).operations()}
    documented = {
        each: (operations[each].method, operations[each].path) for each in routes if each in operations
    }
    assert set(routes) - set(documented) == CATALOGUE | {RECONNECT}
    assert {each: routes[each] for each in documented} == documented
    assert {case.op for case in CASES} == set(documented)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_request_and_answer_are_as_documented(
    case: Case, operations: dict[str, DocumentedOperation], world: World
) -> None:
    """A documented request gets an answer of the documented status and shape, and nothing undocumented."""
    operation = operations[case.op]
    exchange = await world.users(operation.method, operation.path, case)
    found = operation.answer_findings(exchange.status, exchange.answer, OPTIONAL.get(case.op, frozenset()))
    assert operation.request_findings(exchange.query, exchange.headers, exchange.body) == []
    assert (exchange.status, found) == (case.status, [])


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_refusals_have_the_vendors_error(
    case: Case, operations: dict[str, DocumentedOperation], world: World
) -> None:
    """A refusal answers 400 or 401 {statusCode, message, error}, and 422 with an array of messages."""
    operation = operations[case.op]
    exchange = await world.users(operation.method, operation.path, case)
    assert (exchange.status, operation.answer_findings(exchange.status, exchange.answer)) == (case.status, [])
    assert exchange.answer["statusCode"] == case.status


async def test_every_rate_limit_header_is_there(world: World) -> None:
    """Each answer carries the five rate-limit headers that FACTS §2 names."""
    async with world.session.get(f"{world.servers.users_url}/users/") as answer:
        sent = {name for name in answer.headers if name.startswith("X-RateLimit")}
    ends = ("Limit-Daily", "Daily-Remaining", "Interval-Milliseconds", "Max", "Remaining")
    assert sent == {f"X-RateLimit-{end}" for end in ends}
