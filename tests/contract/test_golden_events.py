"""Golden bytes of every event type: what was once promised to readers."""

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from pipeline.codec import Record, encode
from pipeline.events import TYPES
from pipeline.topics import load as load_topics
from tests.contract.golden_values import FOLDER, VALUES, as_file, codec, file_of, written

NAMES = sorted(TYPES)
FILES = sorted(FOLDER.glob("*.json"))


def _golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(file_of(name).read_bytes())
    return found


def _record(golden: dict[str, Any]) -> Record:
    headers = tuple((name, text.encode()) for name, text in golden["headers"].items())
    key, value = golden["key"].encode(), golden["value"].encode()
    return Record(golden["topic"], 0, 0, golden["timestamp"], key, value, headers)


def test_every_event_type_has_a_golden_file_and_every_file_a_type() -> None:
    """A new type comes with its promise; a type that readers know does not go."""
    assert sorted(file.stem for file in FILES if "~" not in file.stem) == NAMES
    assert {file.stem.partition("~")[0] for file in FILES} == set(NAMES)


def test_every_type_stands_on_a_topic_and_every_topics_type_is_known() -> None:
    """``topics.yaml`` and the events name the same types."""
    on_topics = {name for topic in load_topics().values() for name in topic.types} - {"raw"}
    assert on_topics == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_todays_bytes_are_the_golden_ones(name: str) -> None:
    """Value, key, timestamp and headers are written as promised, byte for byte."""
    assert as_file(written(name)) == _golden(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden_bytes_are_still_read(file: Path) -> None:
    """Every record ever promised decodes to its type, with every field as it was written."""
    golden = orjson.loads(file.read_bytes())
    event = codec().decode(_record(golden))
    name = file.stem.partition("~")[0]
    assert type(event.value) is TYPES[name]
    assert orjson.loads(golden["value"]).items() <= orjson.loads(encode(event.value)).items()
    assert (event.type, event.backfill, event.received_at) == (name, True, golden["timestamp"])


@pytest.mark.parametrize("name", NAMES)
def test_golden_bytes_are_read_as_the_value_they_were_written_from(name: str) -> None:
    """Reading is the inverse of writing."""
    assert codec().decode(_record(_golden(name))).value == VALUES[name][2]


@pytest.mark.parametrize("name", NAMES)
def test_readers_ignore_fields_that_they_do_not_know(name: str) -> None:
    """A newer writer may have added fields."""
    golden = _golden(name)
    golden["value"] = golden["value"].removesuffix("}") + ',"added_later":{"deep":[1]}}'
    assert codec().decode(_record(golden)).value == VALUES[name][2]


@pytest.mark.parametrize("name", NAMES)
def test_golden_values_set_every_field(name: str) -> None:
    """A field left at its default would not be seen to change."""
    value = VALUES[name][2]
    left = [
        field.name
        for field in msgspec.structs.fields(value)
        if not field.required and getattr(value, field.name) == field.default
    ]
    assert left == []


@pytest.mark.parametrize("name", NAMES)
def test_writers_write_every_field(name: str) -> None:
    """Null means unknown; a field is never left out."""
    value = VALUES[name][2]
    names = {field.encode_name for field in msgspec.structs.fields(value)}
    assert names <= set(orjson.loads(encode(value)))
