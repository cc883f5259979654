"""Every field that holds text says whether it tells of a person."""

from typing import Annotated

import msgspec
import pytest

from pipeline.events import TYPES
from pipeline.events.fields import doc
from pipeline.events.personal import classified, direct
from pipeline.topics import load

TOPICS = load()
#: What a field of one of these names holds tells who a person is or what they wrote, wherever it stands.
TELLING = {
    *("first_name", "last_name", "email", "mobile", "phone", "country"),
    *("text", "body", "attributes", "custom_fields"),
}
#: What a field of one of these names holds stands for one person.
STANDS_FOR = {
    *("contact_key", "contact_id", "user_id", "assigned_to", "from_key", "to_key", "conversation_id"),
}


class Part(msgspec.Struct):
    """A part of `Whole`."""

    name: Annotated[str, doc("A name", personal="direct")]
    forgotten: str | None = None


class Whole(msgspec.Struct):
    """A value with text in every place that a type can have it."""

    parts: tuple[Part, ...]
    part: Part | None
    words: Annotated[dict[str, str], doc("Words", personal="none")]
    lists: list[str]
    raw: msgspec.Raw
    count: int = 0


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_text_is_classified(name: str) -> None:
    """No field that can hold text is without a word on personal data."""
    assert [path for path, found in classified(TYPES[name]).items() if found is None] == []


@pytest.mark.parametrize("name", sorted(TYPES))
def test_what_tells_of_a_person_is_never_called_harmless(name: str) -> None:
    """Names, addresses, numbers and what people wrote are direct; what stands for them is a pseudonym."""
    found = classified(TYPES[name])
    wanted = {path: _wanted(path.rsplit(".", 1)[-1]) for path in found}
    assert {path: found[path] for path in found if wanted[path]} == {p: w for p, w in wanted.items() if w}


def _wanted(field: str) -> str:
    return "direct" if field in TELLING else "pseudonym" if field in STANDS_FOR else ""


def test_no_place_for_text_is_overlooked() -> None:
    """Lists, maps, unions, parts and undecoded JSON are looked into; numbers hold no text."""
    assert classified(Whole) == {
        "parts.*.name": "direct",
        "parts.*.forgotten": None,
        "part.name": "direct",
        "part.forgotten": None,
        "words": "none",
        "lists": None,
        "raw": None,
    }
    assert direct(Whole) == ("parts.*.name", "part.name")


def test_a_topic_has_the_classes_of_its_types() -> None:
    """The fields say it; what comes as raw bytes is personal as a whole."""
    assert TOPICS["sakari.contacts"].personal == direct(TYPES["sakari.contact.v1"])
    assert "event.message.text" in TOPICS["activity.enriched"].personal
    assert TOPICS["sources.received"].personal == ("*",)
    assert TOPICS["engagement.metrics"].personal == ()
