"""The contract as it was released: kept, read back, and not broken by what the code says today."""

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from pipeline.cli import contracts, main
from pipeline.codec import encode
from pipeline.contracts.breaches import Breach, Rule
from pipeline.contracts.releases import Contract, breaches, current, releases, save, version_of
from pipeline.contracts.schemas import as_bytes, schemas
from pipeline.errors import ConfigError
from pipeline.events import TYPES
from tests.contract.golden_values import VALUES

NOW = current()
RELEASED = releases()
Captured = pytest.CaptureFixture[str]


def without(contract: Contract, name: str, field: str) -> Contract:
    """*contract* as if type *name* had no *field*."""
    schema = orjson.loads(as_bytes(contract.schemas[name]))
    del schema["properties"][field]
    schema["required"] = [each for each in schema["required"] if each != field]
    return replace(contract, schemas=contract.schemas | {name: schema})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of releases in place of the package's own."""
    monkeypatch.setattr(contracts, "FOLDER", tmp_path)
    return tmp_path


def test_every_release_is_kept() -> None:
    """What the code says today breaks nothing that was ever released."""
    assert RELEASED
    assert breaches(NOW, RELEASED) == []


@pytest.mark.parametrize("release", RELEASED, ids=lambda release: release.version)
def test_what_is_written_today_fits_every_release(release: Contract) -> None:
    """Whoever checks records against the schemas of a release goes on accepting them."""
    for name, schema in release.schemas.items():
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(orjson.loads(encode(VALUES[name][2])))


@pytest.mark.parametrize("release", RELEASED, ids=lambda release: release.version)
def test_examples_of_every_release_are_still_read(release: Contract) -> None:
    """Records as they were written then are decoded by the types of today."""
    for name, schema in release.schemas.items():
        read = msgspec.json.decode(orjson.dumps(schema["examples"][0]), type=TYPES[name])
        assert isinstance(read, TYPES[name])


def test_a_saved_contract_is_read_back(tmp_path: Path) -> None:
    """Nothing is lost in the files, and the oldest comes first, by its numbers."""
    for version in ("1.10.0", "1.9.0"):
        save(NOW, tmp_path / version)
    read = releases(tmp_path)
    assert [each.version for each in read] == ["1.9.0", "1.10.0"]
    assert read[0] == replace(NOW, version="1.9.0")


def test_a_release_is_never_written_over(tmp_path: Path) -> None:
    """Its files are what others have built on."""
    save(NOW, tmp_path / "1.0.0")
    with pytest.raises(FileExistsError):
        save(NOW, tmp_path / "1.0.0")


def test_a_breach_names_every_release_that_it_breaks() -> None:
    """Once, with all of them; what breaks no release but is wrong in itself has none."""
    old, newer = replace(NOW, version="1.0.0"), replace(NOW, version="1.1.0")
    table = replace(NOW.topics["users.tags"], key="tag id")
    two = replace(NOW.topics["meta"], types=(*NOW.topics["meta"].types, "identity.fingerprint.v2"))
    now = replace(NOW, topics=NOW.topics | {"users.tags": table, "meta": two})
    assert [(b.subject, b.rule, b.releases) for b in breaches(now, [old, newer])] == [
        ("meta", Rule.MAJOR_IN_PLACE, ()),
        ("users.tags", Rule.KEY_CHANGED, ("1.0.0", "1.1.0")),
    ]


def test_a_name_that_a_release_dropped_is_refused() -> None:
    """Also where the release between is the only one without it."""
    has, lacks = replace(NOW, version="1.0.0"), without(replace(NOW, version="1.1.0"), "users.tag.v1", "name")
    found = breaches(NOW, [has, lacks])
    assert [(b.path, b.rule) for b in found] == [("name", Rule.ADDED_REQUIRED), ("name", Rule.REUSED)]


@pytest.mark.parametrize("text", ["1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "", "1.0.0/..", "1.0.1234567"])
def test_what_is_no_version_is_refused(text: str) -> None:
    """A release's name orders it."""
    with pytest.raises(ConfigError, match="three numbers"):
        version_of(text)


def test_check_says_what_is_broken_and_exits_1(folder: Path, capsys: Captured) -> None:
    """A person reads place, rule and way out; a program the same in JSON."""
    save(_with_field("users.tag.v1", "shade"), folder / "1.0.0")
    assert main(["topics", "check"]) == 1
    told = capsys.readouterr().out
    assert told.startswith(
        "users.tag.v1: shade: removed: is gone (promised by 1.0.0)\n    allowed: keep the field"
    )
    assert main(["topics", "check", "--json"]) == 1
    found = orjson.loads(capsys.readouterr().out)
    assert (found["kind"], found["kept"], found["releases"]) == ("contract", False, ["1.0.0"])
    assert {"subject", "path", "rule", "told", "allowed", "releases"} == set(found["breaches"][0])


def _with_field(name: str, field: str) -> Contract:
    schema: dict[str, Any] = orjson.loads(as_bytes(NOW.schemas[name]))
    schema["properties"][field] = {"type": "string"}
    return replace(NOW, schemas=NOW.schemas | {name: schema})


def test_check_exits_0_where_all_is_kept(folder: Path, capsys: Captured) -> None:
    """Also with no release yet."""
    assert main(["topics", "check"]) == 0
    save(NOW, folder / "1.0.0")
    assert main(["topics", "check", "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out.splitlines()[-1])["breaches"] == []


def test_a_release_is_written_once_and_only_when_something_changed(folder: Path, capsys: Captured) -> None:
    """A version after the last, a contract that breaks none, and a change to tell of."""
    assert main(["topics", "release", "1.0.0"]) == 0
    assert releases(folder) == (replace(NOW, version="1.0.0"),)
    assert main(["topics", "release", "1.0.0"]) == 2
    assert main(["topics", "release", "1.1.0"]) == 2
    assert "nothing changed since 1.0.0" in capsys.readouterr().err
    save(without(NOW, "users.tag.v1", "colour"), folder / "1.0.1")
    assert main(["topics", "release", "1.1.0"]) == 1
    assert [each.version for each in releases(folder)] == ["1.0.0", "1.0.1"]


def test_schemas_are_exported_as_files(tmp_path: Path, capsys: Captured) -> None:
    """One for each type, named as its records say; the same bytes each time."""
    for _ in range(2):
        assert main(["topics", "export", "--schemas", str(tmp_path / "deep" / "er"), "--json"]) == 0
    told = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    files = {file.stem: file.read_bytes() for file in (tmp_path / "deep" / "er").glob("*.json")}
    assert files == {name: as_bytes(schema) for name, schema in schemas().items()}
    assert told["files"] == sorted(f"{name}.json" for name in files)


def test_an_export_of_nothing_is_refused(capsys: Captured) -> None:
    """It says what can be exported."""
    assert main(["topics", "export"]) == 2
    assert "--schemas" in capsys.readouterr().err


def test_breaches_are_sorted() -> None:
    """By type, then place: the output does not change from run to run."""
    assert Breach(subject="a", path="b", rule=Rule.REMOVED, told="") < Breach(
        subject="a", path="c", rule=Rule.ADDED_REQUIRED, told=""
    )
