"""What is shown of a record without personal data."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.contracts.schemas import example
from pipeline.events import TYPES
from pipeline.events.personal import classified
from pipeline.masking import MASKED, masked, masked_headers

NAMES = sorted(TYPES)


def texts(value: Any, shown: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Path, text and what is shown of it, for every text in *value*."""
    if isinstance(value, dict) and shown != MASKED:
        for name, each in value.items():
            yield from texts(each, shown[name], f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and shown != MASKED:
        for each, its in zip(value, shown, strict=True):
            yield from texts(each, its, f"{path}.*")
    elif isinstance(value, str | dict | list):
        yield path, str(value), shown


def class_of(path: str, classes: dict[str, Any]) -> str | None:
    """How *path*, or the list or map that it is an item of, is classified; None: not at all."""
    while path and path not in classes:
        path = path.rpartition(".")[0]
    return classes.get(path)


@pytest.mark.parametrize("name", NAMES)
def test_what_tells_of_a_person_is_masked_and_nothing_else(name: str) -> None:
    """Every text that the type calls direct is replaced, all that it calls otherwise stays as it is."""
    value, classes = example(name), dict(classified(TYPES[name]))
    for path, text, shown in texts(value, masked(value, name)):
        if class_of(path, classes) in {"none", "pseudonym"} or path.endswith("type"):
            assert shown == text, path
        else:
            assert shown == MASKED, path


def test_a_text_of_a_message_is_masked_deep_inside() -> None:
    """The fact within an activity is masked as its own type says, the contact beside it as well."""
    value = example("activity.enriched.v1")
    value["event"] = example("sakari.message.sent.v1") | {"type": "sakari.message.sent.v1"}
    shown = masked(value, "activity.enriched.v1")
    assert shown["event"]["message"]["text"] == shown["contact"]["mobile"] == MASKED
    assert shown["event"]["message"]["status"] == value["event"]["message"]["status"]
    assert shown["contact_key"] == value["contact_key"]


def test_a_fact_that_came_later_shows_only_what_all_have() -> None:
    """Nobody has classified its fields."""
    later = {"type": "x.y.v1", "tenant": "acme", "occurred_at": "t", "who": "Ada", "n": 12025550101}
    shown = masked(example("activity.enriched.v1") | {"event": later}, "activity.enriched.v1")["event"]
    assert shown == later | {"who": MASKED, "n": MASKED}


@pytest.mark.parametrize("value", ["+12025550101", {"a": 1}, [1], 5, True])
def test_a_field_that_came_later_is_masked(value: Any) -> None:
    """Whatever stands in a field that the type does not know."""
    assert masked(example("users.tag.v1") | {"added": value}, "users.tag.v1")["added"] == MASKED


@pytest.mark.parametrize("value", ["Ada", {"first_name": "Ada"}, ["Ada"], 5])
@pytest.mark.parametrize("type_", ["raw", "", "sources.received.v1", "nobody.knows.v9"])
def test_of_a_value_of_an_unknown_type_nothing_is_shown(value: Any, type_: str) -> None:
    """Not even its shape."""
    assert masked(value, type_) == MASKED


@pytest.mark.parametrize("value", ["Ada", {"first_name": "Ada"}, ["Ada"]])
def test_text_where_a_number_or_an_object_was_is_masked(value: Any) -> None:
    """A value that is not as its type says is not shown where it differs."""
    metric = example("engagement.contact.v1")
    assert masked(metric | {"sent": value}, "engagement.contact.v1")["sent"] == MASKED
    assert masked([value], "engagement.contact.v1") == MASKED


def test_a_tombstone_stays_one() -> None:
    """Null tells of nobody; of optional fields likewise."""
    assert masked(None, "users.tag.v1") is None
    assert masked(example("users.contact.v1") | {"email": None}, "users.contact.v1")["email"] is None


def test_headers_lose_numbers_and_secrets() -> None:
    """An error text may quote what a caller sent."""
    told = masked_headers({"dl_error": "refused +12025550101", "ce_type": "a.b.v1"})
    assert told == {"dl_error": "refused ***", "ce_type": "a.b.v1"}
