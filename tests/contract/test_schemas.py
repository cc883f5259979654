"""The schemas of the topics: valid, true of what is written and read, told in full."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import orjson
import pytest
from jsonschema import Draft202012Validator

from pipeline.codec import encode
from pipeline.contracts.schemas import as_bytes, example, id_of, schema, schemas
from pipeline.events import TYPES, UnknownFact
from tests.contract.golden_values import VALUES, file_of

NAMES = sorted(TYPES)
SCHEMAS = schemas()


def fields(part: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field in *part* of a schema, with its place."""
    if isinstance(part, dict):
        for name, field in part.get("properties", {}).items():
            yield f"{where}.{name}", field
        below = {key: value for key, value in part.items() if key != "examples"}
        for key, value in below.items():
            yield from fields(value, f"{where}/{key}")
    elif isinstance(part, list):
        for item in part:
            yield from fields(item, where)


def keywords(part: Any) -> Iterator[str]:
    """Every keyword that stands in *part* of a schema; names of fields are none."""
    if not isinstance(part, dict):
        return
    for keyword, value in part.items():
        yield keyword
        if keyword in {"properties", "$defs"}:
            for each in value.values():
                yield from keywords(each)
        elif keyword in {"items", "additionalProperties"}:
            yield from keywords(value)
        elif keyword in {"anyOf", "prefixItems"}:
            for each in value:
                yield from keywords(each)


def refused(name: str, value: Any) -> list[str]:
    """What the schema of *name* says against *value*, formats included."""
    validator = Draft202012Validator(SCHEMAS[name], format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid(name: str) -> None:
    """The meta-schema of draft 2020-12 accepts it, under a name of its own."""
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert (SCHEMAS[name]["$schema"], SCHEMAS[name]["$id"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        id_of(name),
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_and_was_promised_fits(name: str) -> None:
    """Golden bytes and what is written today are as the schema says."""
    written = orjson.loads(encode(VALUES[name][2]))
    promised = orjson.loads(orjson.loads(file_of(name).read_bytes())["value"])
    assert refused(name, written) == refused(name, promised) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_a_value_with_every_field(name: str) -> None:
    """It fits the schema, is decoded by the type, and shows all that a writer writes."""
    shown = example(name)
    assert refused(name, shown) == []
    read = msgspec.json.decode(orjson.dumps(shown), type=TYPES[name])
    assert orjson.loads(encode(read)) == shown


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_described(name: str) -> None:
    """With what it means; a number also with its unit, and an example where it is not obvious."""
    found = [(place, field) for place, field in fields(SCHEMAS[name]) if "const" not in field]
    assert [place for place, field in found if not field.get("description")] == []
    numbers = [(place, field) for place, field in found if {"integer", "number"} & _types(field)]
    assert [place for place, field in numbers if not field.get("x-unit")] == []
    plain = [(p, f) for p, f in found if _types(f) - {"boolean", "null", "array"} and "not" not in f]
    assert [place for place, field in plain if not field.get("examples")] == []


def _types(field: dict[str, Any]) -> set[str]:
    told = field.get("type", [])
    return {told} if isinstance(told, str) else set(told)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_of_a_field_fits_it(name: str) -> None:
    """What is shown is what may stand there."""
    shown = [(place, f, each) for place, f in fields(SCHEMAS[name]) for each in f.get("examples", ())]
    wrong = [place for place, field, each in shown if not Draft202012Validator(field).is_valid(each)]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_breaks_with_nothing_that_comes_later(name: str) -> None:
    """No closed set of values, no closed object: what a later version adds is valid for today's readers."""
    used = list(keywords(SCHEMAS[name]))
    assert "enum" not in used
    value = orjson.loads(encode(VALUES[name][2]))
    assert refused(name, value | {"added_later": {"deep": [1]}}) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_no_reader_takes_fits_no_schema(name: str) -> None:
    """Leaving out what is required, or another type in its place, is seen."""
    value = example(name)
    for field in SCHEMAS[name].get("required", ()):
        assert refused(name, {key: each for key, each in value.items() if key != field}) != []
        assert refused(name, value | {field: [None]}) != []


def test_known_values_are_told_without_closing_the_set() -> None:
    """A status that came later is valid."""
    status = SCHEMAS["sakari.message.status-changed.v1"]["properties"]["status"]
    assert "delivered" in status["x-known-values"]
    assert "other" not in status["x-known-values"]
    shown = example("sakari.message.status-changed.v1")
    assert refused("sakari.message.status-changed.v1", shown | {"status": "read"}) == []


def test_an_activity_may_carry_a_fact_that_came_later() -> None:
    """It has what all facts have; a fact of a known type must still fit that type."""
    shown, name = example("activity.enriched.v1"), "activity.enriched.v1"
    later = {"type": "sakari.message.read.v1", "tenant": "acme", "occurred_at": shown["event"]["occurred_at"]}
    assert refused(name, shown | {"event": later}) == []
    assert refused(name, shown | {"event": later | {"type": "sakari.message.sent.v1"}}) != []
    assert refused(name, shown | {"event": {"type": "sakari.message.read.v1"}}) != []
    assert UnknownFact.__name__ not in SCHEMAS[name]["$defs"]


def test_the_bytes_of_a_schema_are_always_the_same() -> None:
    """Made twice, a file does not change; and what is handed out can be changed without harm."""
    schemas()["users.tag.v1"]["properties"].clear()
    again = as_bytes(schema(TYPES["users.tag.v1"], "users.tag.v1"))
    assert again == as_bytes(SCHEMAS["users.tag.v1"]) == as_bytes(schemas()["users.tag.v1"])
    assert again.endswith(b"}\n")


def test_a_schema_that_is_wrong_is_refused() -> None:
    """The check against the meta-schema can fail."""
    with pytest.raises(jsonschema.SchemaError):
        Draft202012Validator.check_schema(SCHEMAS["users.tag.v1"] | {"type": "object?"})
