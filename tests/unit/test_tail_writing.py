"""What `pipeline tail` makes of records: columns, text, JSON lines and CSV; and what it takes as a place."""

import csv
import io
from typing import Any

import orjson
import pytest

from pipeline.cli import main
from pipeline.codec import Record
from pipeline.contracts.schemas import example
from pipeline.errors import ConfigError
from pipeline.tail.columns import Viewer, columns
from pipeline.tail.moments import moment_ms, places
from pipeline.tail.writing import as_csv, as_json, as_text
from pipeline.topics import load

TYPE = "contacts.enriched.v1"
NOW_MS = 1_893_456_000_000


def shown(value: bytes | None = None, *, topic: str = "contacts.enriched", unmask: bool = False) -> Any:
    """What is shown of a record with *value*, by default a contact, on *topic*."""
    body = orjson.dumps(example(TYPE)) if value is None else value
    headers = (("ce_type", TYPE.encode()), ("dl_error", b"of +12025550101"))
    record = Record(topic, 1, 7, NOW_MS, b"acme:m:1", body or None, headers)
    return Viewer(load(), unmask=unmask).shown(record)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("key", "acme:m:1"),
        ("timestamp", "2030-01-01T00:00:00.000Z"),
        ("value.tenant", "acme"),
        ("value.mobile", "***"),
        ("value.mobile.deeper", "***"),
        ("value.tags.*.name", ["VIP"]),
        ("value.tags.0.systems", ["sakari", "users"]),
        ("value.tags.9.name", None),
        ("value.nope.nope", None),
        ("headers.ce_type", TYPE),
        ("headers.nope", None),
    ],
)
def test_a_column_is_what_stands_at_its_path(path: str, told: Any) -> None:
    """Fields, items of lists, headers; nothing where there is nothing, masked below what is masked."""
    (column,) = columns([path])
    assert column.of(shown()) == told


@pytest.mark.parametrize("path", ["keys", "tenant", "offset.x", ".", "key.x"])
def test_a_path_that_begins_nowhere_is_refused(path: str) -> None:
    """The parts of a record are told."""
    with pytest.raises(ConfigError, match=r"--columns: .* is no part of a record.*allowed: topic"):
        columns([f"value,{path}"])


@pytest.mark.parametrize("topic", ["sources.received", "dead-letters", "app.decode.seen.changelog"])
def test_bytes_as_they_came_are_shown_only_unmasked(topic: str) -> None:
    """Whatever type they claim on a raw topic; on a topic that nobody declares, what has no known type."""
    body = b'{"name":"Ada"}'
    raw = Record(topic, 0, 1, NOW_MS, None, body, ())
    told = Viewer(load(), unmask=False).shown(raw)
    assert (told["value"], told["value_bytes"], told["key"]) == ("***", 14, None)
    assert Viewer(load(), unmask=True).shown(raw)["value"] == {"name": "Ada"}
    if topic in load():
        assert shown(topic=topic)["value"] == "***"


def test_a_shadow_of_a_topic_is_masked_as_the_topic() -> None:
    """By the type that its records claim."""
    value = shown(topic="r1.contacts.enriched")["value"]
    assert (value["tenant"], value["mobile"]) == ("acme", "***")


def test_unmasked_shows_all() -> None:
    """The value and the headers as they are."""
    told = shown(unmask=True)
    assert told["value"] == example(TYPE)
    assert told["headers"]["dl_error"] == "of +12025550101"
    assert shown()["headers"]["dl_error"] == "of ***"


def test_a_line_of_text_gives_a_terminal_no_orders() -> None:
    """Control characters are written out, one line stays one line."""
    record = shown(b'"\\u001b[2J\\n\xe2\x80\xae"', unmask=True)
    line = as_text(())(record)
    assert line.endswith("  \\x1b[2J\\n\\u202e\n")
    assert line.startswith(f"2030-01-01T00:00:00.000Z  1:7  acme:m:1  {TYPE}  ")


@pytest.mark.parametrize("depth", [150, 251, 253, 600, 5_000])
def test_a_value_of_any_depth_can_be_written(depth: int) -> None:
    """A body that nests deeper than JSON is written is shown as text."""
    record = shown(b"[" * depth + b"]" * depth, topic="sources.received", unmask=True)
    for write in (as_text(()), as_json(()), as_csv(())[1]):
        assert "[" * depth in write(record)


def test_a_tombstone_is_a_dash() -> None:
    """A null value in text, JSON and CSV."""
    record = shown(b"")
    assert as_text(columns(["key,value"]))(record) == "acme:m:1  -\n"
    assert orjson.loads(as_json(())(record))["value"] is None
    assert as_csv(columns(["value"]))[1](record) == '""\r\n'


def test_json_lines_hold_everything_or_what_was_chosen() -> None:
    """Under the names of the parts, or under the paths."""
    whole = orjson.loads(as_json(())(shown()))
    assert whole == {"kind": "record", **shown()}
    some = orjson.loads(as_json(columns(["offset,value.tags.*.name"]))(shown()))
    assert some == {"kind": "record", "offset": 7, "value.tags.*.name": ["VIP"]}


def test_csv_is_read_back_as_it_was() -> None:
    """Quotes, commas and line breaks within a value stay within it."""
    header, write = as_csv(columns(["key,value"]))
    text = 'a "b", c\nd'
    rows = list(csv.reader(io.StringIO(header + write(shown(orjson.dumps(text), unmask=True)), newline="")))
    assert rows == [["key", "value"], ["acme:m:1", text]]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10m", NOW_MS - 600_000),
        ("0s", NOW_MS),
        ("1d", NOW_MS - 86_400_000),
        ("2030-01-01", NOW_MS),
        ("2030-01-01T00:00", NOW_MS),
        ("2030-01-01T02:00:00+02:00", NOW_MS),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago(text: str, ms: int) -> None:
    """Without a zone it is UTC."""
    assert moment_ms("--since", text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "yesterday", "2030-13-01", "1893456000000"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match=r"--since: .* is no time; allowed: how long ago, such as 10m"):
        moment_ms("--since", text, NOW_MS)


def test_places_are_partitions_with_offsets() -> None:
    """Several at once, or one after the other."""
    assert places("--from", ["0:12,1:0", "2:5"]) == {0: 12, 1: 0, 2: 5}


@pytest.mark.parametrize("text", ["12", "0:", "0:-1", "a:b", "0:1,0:2"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """With what is allowed, or that it is there twice."""
    with pytest.raises(ConfigError, match="--from: "):
        places("--from", [text])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "1h", "-n", "5"], "--since and -n: give one of them"),
        (["-n", "0"], "-n: 0; allowed: 1 to 10000"),
        (["--json", "--csv"], "--json and --csv: give one of them"),
        (["--columns", "nope"], "--columns: 'nope' is no part of a record"),
        (["--since", "soon"], "--since: 'soon' is no time"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_kafka_is(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on standard output."""
    assert main(["tail", "a.topic", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""
