"""Where the wire differs from the vendors' documents, and why; what FACTS.md says of the wire stands."""

from typing import Any

from tests.contract.vendor_docs import Deviation

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
TIME: Json = {"type": "string", "format": "date-time"}
NAMED: Json = {"type": "object", "properties": {"id": TEXT, "name": TEXT}, "required": ["id"]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _one(name: str) -> Json:
    return {"type": "object", "properties": {"success": {"type": "boolean"}, "data": _ref(name)}}


SAKARI = (
    Deviation(
        where="Conversation",
        at="closed",
        schema=TIME,
        reason="a boolean in the document, a date-time on the wire (FACTS §1)",
    ),
    Deviation(
        where="Conversation",
        at="group",
        schema=NAMED,
        reason="conversations carry their group on the wire (example of message-received)",
    ),
    Deviation(where="PhoneNumber", at="id", schema=TEXT, reason="on the wire (example of message-received)"),
    *(
        Deviation(where="Updated", at=f"by.{name}", schema=TEXT, reason="by{…source,subSource} (FACTS §1)")
        for name in ("name", "source", "subSource")
    ),
    Deviation(
        where="PaginatedResponse",
        at="pagination.hasNext",
        schema={"type": "boolean"},
        reason="newer renderings have hasNext instead of totalCount (FACTS §1)",
    ),
    Deviation(
        where="contacts.create:201",
        at="",
        schema={"oneOf": [_one("Contact"), _ref("ContactUploadResponse")]},
        reason="documented as a list, live it is {success, data: {one contact}} (FACTS §1)",
    ),
    Deviation(
        where="Campaign",
        at="",
        schema={"allOf": [{"properties": {"id": TEXT, "name": TEXT}}, _ref("CampaignRequest")]},
        reason="the document shows only the id; the server keeps what was sent (open schema, FACTS §1)",
    ),
    Deviation(
        where="SendMessagesResponse",
        at="success",
        schema={"type": "boolean"},
        reason="every answer has the envelope {success, …} (FACTS §1)",
    ),
    Deviation(
        where="SendMessagesResponse",
        at="data.queued",
        schema={"type": "integer"},
        reason="the older rendering {messages, jobId, queued, estimatedPrice} (FACTS §1)",
    ),
    Deviation(
        where="Webhook",
        at="eventTypes",
        schema={"type": "array", "items": TEXT},
        reason="three lists of event types exist, the document's is the shortest (FACTS §1)",
    ),
    *(
        Deviation(where="Webhook", at=name, schema=TEXT, reason="{id,type,eventTypes,destination} (FACTS §1)")
        for name in ("id", "type", "destination")
    ),
)

#: request findings that stand: the document contradicts itself
SAKARI_REQUESTS = {
    "webhooks.subscribe": (
        ": 'callbackUrl' is a required property",
        "the body is {url, eventTypes}, though required says callbackUrl (FACTS §1)",
    ),
}

_ERROR: Json = {
    "type": "object",
    "properties": {"statusCode": {"type": "integer"}, "message": TEXT, "error": TEXT},
    "required": ["statusCode", "message"],
}
_SHARED = "../common/common-schemas.json is not published; the shape is FACTS §2's"
_DETAILS = "catalogue dialect: details carry more (detailsId, colour, description) (FACTS §2)"
_SEARCH: Json = {
    "type": "object",
    "properties": {
        "contacts": {
            "type": "array",
            "items": {"type": "object", "required": ["id", "locationId", "searchAfter", "dateAdded"]},
        },
        "total": {"type": "integer"},
        "traceId": TEXT,
    },
}

USERS = (
    Deviation(where="BadRequestDTO", at="", schema=_ERROR, reason=_SHARED),
    Deviation(
        where="UnauthorizedDTO", at="", schema={**_ERROR, "required": [*_ERROR["properties"]]}, reason=_SHARED
    ),
    Deviation(
        where="UnprocessableDTO",
        at="",
        schema={
            "type": "object",
            "properties": {**_ERROR["properties"], "message": {"type": "array", "items": TEXT}},
            "required": ["statusCode", "message"],
        },
        reason=_SHARED,
    ),
)
SOCIAL = (
    *USERS,
    *(
        Deviation(where="SocialMediaTagSchema", at=name, schema=TEXT, reason=_DETAILS)
        for name in ("color", "description", "detailsId")
    ),
)
CONTACTS = (
    *USERS,
    Deviation(
        where="search-contacts-advanced:200",
        at="",
        schema=_SEARCH,
        reason="the document has no schema for the answer; the cursor is searchAfter (FACTS §2)",
    ),
)

_PLAN = frozenset({"planId"})
_INSTALL = frozenset(
    {"approvedLocations", "isBulkInstallation", "installToFutureLocations", "approveAllLocations"}
)
_PROFILE = frozenset({"extension", "lcPhone", "permissions", "phone", "platformLanguage", "scopes"})
#: top-level properties that an answer need not carry; the vendor's documents require almost none
OPTIONAL = {
    "get-access-token": _PLAN | _INSTALL,  # of paid plans and bulk installations, not in FACTS §2's list
    "get-location-access-token": _PLAN,
    **dict.fromkeys(("create-user", "get-user", "update-user"), _PROFILE),  # settings nobody has set
}
