"""The records of a whole story against the contract: schemas fit them, and no person is told of unmarked."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from pipeline.codec import Record, text_headers
from pipeline.contracts.schemas import schemas
from pipeline.events import TYPES
from pipeline.events.personal import classified
from pipeline.testing import Driver
from pipeline.topics import load
from tests.topology.oracle_run import Run

TYPED = [topic for topic in load().values() if topic.types != ("raw",)]
#: Of each type this many records are checked, spread over the story.
SAMPLES = 25
ADDRESS = re.compile(r"[\w.]+@[\w.]+|\+\d{8,}")

#: Where the sources tell of a person in what they send.
TELLING = re.compile(r"(first_?name|last_?name|email|number|phone|message|\.body|\.text)$", re.IGNORECASE)

Story = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A story of 600 webhooks, played to its end."""
    return Run(tmp_path_factory.mktemp("story") / "ledger", webhooks=600).play().driver


@pytest.fixture(scope="module")
def story(played: Driver) -> Story:
    """``ce_type`` -> the values of the story."""
    found: Story = {}
    for topic in TYPED:
        for record in played.records(topic.name):
            if record.value is not None:
                found.setdefault(_type(record, topic.types), []).append(orjson.loads(record.value))
    return found


def _type(record: Record, types: tuple[str, ...]) -> str:
    return text_headers(record.headers).get("ce_type", types[0])


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of every text in *value*, the keys of maps left out."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, f"{path}.*")
    elif isinstance(value, str):
        yield path, value


def class_of(path: str, classes: dict[str, Any]) -> str:
    """How the field at *path*, or the list or map that it is an item of, is classified."""
    while path not in classes:
        path = path.rpartition(".")[0]
    return str(classes[path])


def test_every_record_fits_its_schema(story: Story) -> None:
    """What stages write is what other teams are told; most types are in the story."""
    described = schemas()
    wrong = []
    for name, values in story.items():
        validator = Draft202012Validator(described[name])
        for value in values[:: max(1, len(values) // SAMPLES)]:
            wrong += [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert wrong == []
    assert len(story) > 20


def test_no_person_is_told_of_outside_of_what_is_marked(played: Driver, story: Story) -> None:
    """What the sources told of people stands in no field that is said not to tell of a person."""
    bodies = [orjson.loads(record.value or b"{}") for record in played.records("sources.received")]
    people = {text for body in bodies for path, text in leaves(body) if TELLING.search(path)}
    assert len(people) > 200
    found = {
        (name, path, text)
        for name, values in story.items()
        for value in values
        for path, text in leaves(value)
        if text in people or ADDRESS.search(text)
    }
    classes = {name: classified(TYPES[name]) for name in story}
    assert [each for each in found if class_of(each[1], classes[each[0]]) != "direct"] == []
    assert len({path for _, path, _ in found}) > 10
