"""Sakari's contacts operations, as FACTS §1 says of the wire."""

import csv
import io
from collections.abc import Iterator
from typing import Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.sakari_paging import AccountOperation, done, listed, matches
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Change, Hook, Json

__all__ = ["OPERATIONS", "existing_or_new", "invalid_mobile"]

_CORE: Final = ("firstName", "lastName", "email", "mobile")
_WRITABLE: Final = (*_CORE, "tags", "attributes")
_CSV_CORE: Final = {"firstName": "firstName", "lastName": "lastName", "email": "email"}
INVALID_MOBILE: Final = {"code": "CONT-001", "description": "Invalid mobile number"}


def fetch_all(account: SakariAccount, call: Call) -> Answer:
    """``contacts.fetchAll``: filtered by parts of names, mobile and e-mail, and by tags (any of a list)."""
    query = call.query
    if not {"firstName", "lastName", "email", "mobile", "tags"} & set(query):
        return listed(account, call, account.contacts.values())
    return listed(account, call, [each for each in account.contacts.values() if _wanted(each, call)])


def create(account: SakariAccount, call: Call) -> Answer:
    """``contacts.create``: one contact from JSON answers that contact, a CSV answers a summary."""
    strategy = call.query.get("mergeStrategy", "append")
    if strategy not in ("append", "core", "remove"):
        raise Refusal(400, "mergeStrategy must be append, core or remove", "GEN-001")
    if call.content_type == "text/csv":
        return _upload(account, call, strategy)
    fields = _fields(call.json())
    if invalid_mobile(fields):
        raise Refusal(400, "Invalid mobile number", "CONT-001")
    change = existing_or_new(account, fields, call, strategy)
    return Answer(201, done(change.value), change.hooks)


def fetch(account: SakariAccount, call: Call) -> Answer:
    """``contacts.fetch``."""
    return Answer(200, done(account.contact(call.params["contactId"])))


def update(account: SakariAccount, call: Call) -> Answer:
    """``contacts.update``: the document declares no body, the wire takes the fields to change."""
    identity = account.contact(call.params["contactId"])["id"]
    fields = _fields(call.json())
    if "mobile" in fields and invalid_mobile(fields):
        raise Refusal(400, "Invalid mobile number", "CONT-001")
    change = account.put_contact(fields, at=call.now, contact_id=identity)
    return Answer(200, done(change.value), change.hooks)


def remove(account: SakariAccount, call: Call) -> Answer:
    """``contacts.remove``."""
    return Answer(200, done(), account.remove_contact(call.params["contactId"], at=call.now).hooks)


def invalid_mobile(fields: Json) -> bool:
    """Whether ``mobile.number`` has not the 7 to 15 digits of a phone number."""
    mobile = fields.get("mobile")
    number = mobile.get("number") if isinstance(mobile, dict) else None
    return not isinstance(number, str) or not 7 <= sum(map(str.isdigit, number)) <= 15


def existing_or_new(account: SakariAccount, fields: Json, call: Call, strategy: str) -> Change:
    """
    Put a contact, merged into the one with its mobile if there is one: ``append`` adds tags and attributes,
    ``core`` changes only names, e-mail and mobile, ``remove`` replaces tags and attributes.
    """
    known = account.contact_with_mobile(fields["mobile"]["number"])
    if known is None:
        return account.put_contact(fields, at=call.now)
    core: Json = {name: fields[name] for name in _CORE if name in fields}
    match strategy:
        case "core":
            merged = core
        case "remove":
            merged = core | {"tags": fields.get("tags", []), "attributes": fields.get("attributes", {})}
        case _:
            merged = core | _appended(known, fields)
    return account.put_contact(merged, at=call.now, contact_id=known["id"])


def _appended(known: Json, fields: Json) -> Json:
    names = {tag["tag"] for tag in known["tags"]}
    fresh = [tag for tag in fields.get("tags", []) if tag["tag"] not in names]
    return {
        "tags": [*known["tags"], *fresh],
        "attributes": {**known["attributes"], **fields.get("attributes", {})},
    }


def _fields(body: Json) -> Json:
    """The writable fields of *body*; a tag given as a plain string becomes ``{tag, visible}``."""
    fields = {name: body[name] for name in _WRITABLE if body.get(name) is not None}
    if "tags" in fields:
        fields["tags"] = [_tag(each) for each in fields["tags"]]
    return fields


def _tag(given: object) -> Json:
    if isinstance(given, str):
        return {"tag": given, "visible": True}
    if isinstance(given, dict) and isinstance(given.get("tag"), str):
        return {"visible": True, **given}
    raise Refusal(400, "A tag is an object with the field tag", "CONT-002")


def _wanted(contact: Json, call: Call) -> bool:
    query = call.query
    number = (contact.get("mobile") or {}).get("number", "")
    digits = "".join(filter(str.isdigit, query.get("mobile", "")))
    tags = {tag for tag in query.get("tags", "").split(",") if tag}
    return (
        all(matches(contact.get(name), query.get(name)) for name in ("firstName", "lastName", "email"))
        and digits in "".join(filter(str.isdigit, number))
        and (not tags or any(tag["tag"] in tags for tag in contact["tags"]))
    )


def _upload(account: SakariAccount, call: Call, strategy: str) -> Answer:
    before = set(account.contacts)
    contacts: list[Json] = []
    errors: list[Json] = []
    hooks: list[Hook] = []
    for fields in _rows(call.raw.decode("utf-8", "replace")):
        if invalid_mobile(fields):
            errors.append({**fields, "valid": False, "error": dict(INVALID_MOBILE)})
            continue
        change = existing_or_new(account, fields, call, strategy)
        contacts.append(change.value)
        hooks.extend(change.hooks)
    inserted = sum(contact["id"] not in before for contact in contacts)
    counts = {"inserted": inserted, "updated": len(contacts) - inserted, "success": len(contacts)}
    data = {"submitted": len(contacts) + len(errors), **counts, "contacts": contacts, "errors": errors}
    return Answer(201, done(data), tuple(hooks))


def _rows(text: str) -> Iterator[Json]:
    """Contacts of a CSV with a head line; columns that are no core fields are attributes."""
    for row in csv.DictReader(io.StringIO(text), restkey="", restval=""):
        given = {name: value for name, value in row.items() if name and isinstance(value, str)}
        mobile = {"number": given.pop("mobile", ""), "country": given.pop("country", "US")}
        core = {_CSV_CORE[name]: given.pop(name) for name in list(given) if name in _CSV_CORE}
        yield {**core, "mobile": mobile, "attributes": given}


OPERATIONS: Final = (
    AccountOperation("contacts.fetchAll", "GET", "/contacts", fetch_all),
    AccountOperation("contacts.create", "POST", "/contacts", create),
    AccountOperation("contacts.fetch", "GET", "/contacts/{contactId}", fetch),
    AccountOperation("contacts.update", "PUT", "/contacts/{contactId}", update),
    AccountOperation("contacts.remove", "DELETE", "/contacts/{contactId}", remove),
)
