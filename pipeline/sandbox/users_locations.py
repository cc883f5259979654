"""The Users API's location settings: the catalogue of contact tags, custom values, custom fields."""

from typing import Final

from pipeline.sandbox.http_app import Answer, Call
from pipeline.sandbox.state import Json
from pipeline.sandbox.state_types import found
from pipeline.sandbox.users_shared import UsersOperation, location_of, required
from pipeline.sandbox.users_state import UsersState

__all__ = ["OPERATIONS"]


def tags(state: UsersState, call: Call) -> Answer:
    """``get-location-tags``: all of them, without pages."""
    return Answer(200, {"tags": list(location_of(state, call).catalogue.values())})


def create_tag(state: UsersState, call: Call) -> Answer:
    """``create-tag``: 200, as the vendor's document says."""
    return Answer(200, {"tag": location_of(state, call).put_catalogue_tag(_name(call)).value})


def fetch_tag(state: UsersState, call: Call) -> Answer:
    """``get-tag-by-id``."""
    return Answer(200, {"tag": _tag(state, call)})


def update_tag(state: UsersState, call: Call) -> Answer:
    """``update-tag``: contacts keep the name they have."""
    identity = _tag(state, call)["id"]
    return Answer(
        200, {"tag": location_of(state, call).put_catalogue_tag(_name(call), tag_id=identity).value}
    )


def delete_tag(state: UsersState, call: Call) -> Answer:
    """``delete-tag``."""
    del location_of(state, call).catalogue[_tag(state, call)["id"]]
    return Answer(200, {"succeded": True})


def values(state: UsersState, call: Call) -> Answer:
    """``get-custom-values``."""
    return Answer(200, {"customValues": list(location_of(state, call).custom_values.values())})


def create_value(state: UsersState, call: Call) -> Answer:
    """``create-custom-value``."""
    body = call.json()
    required(body, name=str, value=str)
    change = location_of(state, call).put_custom_value(body["name"], body["value"])
    return Answer(201, {"customValue": change.value})


def fetch_value(state: UsersState, call: Call) -> Answer:
    """``get-custom-value``."""
    return Answer(200, {"customValue": _value(state, call)})


def update_value(state: UsersState, call: Call) -> Answer:
    """``update-custom-value``."""
    identity = _value(state, call)["id"]
    body = call.json()
    required(body, name=str, value=str)
    change = location_of(state, call).put_custom_value(body["name"], body["value"], value_id=identity)
    return Answer(200, {"customValue": change.value})


def delete_value(state: UsersState, call: Call) -> Answer:
    """``delete-custom-value``."""
    del location_of(state, call).custom_values[_value(state, call)["id"]]
    return Answer(200, {"succeded": True})


def fields(state: UsersState, call: Call) -> Answer:
    """``get-custom-fields``: of contacts, of opportunities, or all."""
    model = call.query.get("model", "contact")
    known = location_of(state, call).custom_fields.values()
    return Answer(200, {"customFields": [each for each in known if model in ("all", each["model"])]})


def create_field(state: UsersState, call: Call) -> Answer:
    """``create-custom-field``."""
    body = call.json()
    required(body, name=str, dataType=str)
    return Answer(201, {"customField": location_of(state, call).put_custom_field(_shown(body)).value})


def fetch_field(state: UsersState, call: Call) -> Answer:
    """``get-custom-field``."""
    return Answer(200, {"customField": _field(state, call)})


def update_field(state: UsersState, call: Call) -> Answer:
    """``update-custom-field``."""
    identity = _field(state, call)["id"]
    body = call.json()
    required(body, name=str)
    change = location_of(state, call).put_custom_field(_shown(body), field_id=identity)
    return Answer(200, {"customField": change.value})


def delete_field(state: UsersState, call: Call) -> Answer:
    """``delete-custom-field``."""
    del location_of(state, call).custom_fields[_field(state, call)["id"]]
    return Answer(200, {"succeded": True})


def _name(call: Call) -> str:
    body = call.json()
    required(body, name=str)
    return str(body["name"])


def _shown(body: Json) -> Json:
    return {
        name: body[name] for name in ("name", "dataType", "placeholder", "position", "model") if name in body
    }


def _tag(state: UsersState, call: Call) -> Json:
    return found(location_of(state, call).catalogue, "tag", call.params["tagId"])


def _value(state: UsersState, call: Call) -> Json:
    return found(location_of(state, call).custom_values, "custom value", call.params["id"])


def _field(state: UsersState, call: Call) -> Json:
    return found(location_of(state, call).custom_fields, "custom field", call.params["id"])


_HERE: Final = "/locations/{locationId}"
_TAGS: Final = (f"{_HERE}/tags", ("locations/tags.readonly",), ("locations/tags.write",))
_VALUES: Final = (
    f"{_HERE}/customValues",
    ("locations/customValues.readonly",),
    ("locations/customValues.write",),
)
_FIELDS: Final = (
    f"{_HERE}/customFields",
    ("locations/customFields.readonly",),
    ("locations/customFields.write",),
)
OPERATIONS: Final = (
    UsersOperation("get-location-tags", "GET", _TAGS[0], tags, _TAGS[1]),
    UsersOperation("create-tag", "POST", _TAGS[0], create_tag, _TAGS[2]),
    UsersOperation("get-tag-by-id", "GET", f"{_TAGS[0]}/{{tagId}}", fetch_tag, _TAGS[1]),
    UsersOperation("update-tag", "PUT", f"{_TAGS[0]}/{{tagId}}", update_tag, _TAGS[2]),
    UsersOperation("delete-tag", "DELETE", f"{_TAGS[0]}/{{tagId}}", delete_tag, _TAGS[2]),
    UsersOperation("get-custom-values", "GET", _VALUES[0], values, _VALUES[1]),
    UsersOperation("create-custom-value", "POST", _VALUES[0], create_value, _VALUES[2]),
    UsersOperation("get-custom-value", "GET", f"{_VALUES[0]}/{{id}}", fetch_value, _VALUES[1]),
    UsersOperation("update-custom-value", "PUT", f"{_VALUES[0]}/{{id}}", update_value, _VALUES[2]),
    UsersOperation("delete-custom-value", "DELETE", f"{_VALUES[0]}/{{id}}", delete_value, _VALUES[2]),
    UsersOperation("get-custom-fields", "GET", _FIELDS[0], fields, _FIELDS[1]),
    UsersOperation("create-custom-field", "POST", _FIELDS[0], create_field, _FIELDS[2]),
    UsersOperation("get-custom-field", "GET", f"{_FIELDS[0]}/{{id}}", fetch_field, _FIELDS[1]),
    UsersOperation("update-custom-field", "PUT", f"{_FIELDS[0]}/{{id}}", update_field, _FIELDS[2]),
    UsersOperation("delete-custom-field", "DELETE", f"{_FIELDS[0]}/{{id}}", delete_field, _FIELDS[2]),
)
