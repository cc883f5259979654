"""`pipeline erase` refuses what it cannot do before it asks Kafka anything."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.identity import Identity
from pipeline.runtime.erasure_report import public_key, signed
from tests.unit.test_erasure_report import IDENTITY, REPORT

SECRET = "a secret of these tests that is long enough"
NUMBER = "+12025550101"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tenant without anything, and a Kafka that nobody will find."""
    monkeypatch.setenv("PIPELINE_IDENTITY_SECRET__VALUE", SECRET)
    file = tmp_path / "pipeline.yaml"
    kafka = {"bootstrap_servers": "127.0.0.1:1"}
    file.write_text(json.dumps({"kafka": kafka, "tenants": {"acme": {"region": "US"}}}))
    return file


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tenant", "other", "--mobile", NUMBER], "--tenant"),
        (["--tenant", "acme"], "--mobile, --contact-id"),
        (["--tenant", "acme", "--mobile", NUMBER, "--contact-id", "c1"], "--mobile, --contact-id"),
        (["--tenant", "acme", "--mobile", "555"], "--mobile"),
        (["--tenant", "acme", "--mobile", NUMBER, "--report", "/nowhere/to/be/found.json"], "--report"),
    ],
)
def test_what_cannot_be_done_is_refused(
    words: list[str], told: str, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the word, and tells no number."""
    assert main(["erase", *words, "--settings", str(settings)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert NUMBER not in error


def test_without_the_identity_secret_nobody_is_found(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contact keys and signatures follow from it."""
    monkeypatch.delenv("PIPELINE_IDENTITY_SECRET__VALUE")
    assert main(["erase", "--tenant", "acme", "--contact-id", "c1", "--settings", str(settings)]) == 2
    assert "identity_secret" in capsys.readouterr().err


def test_the_public_key_follows_from_the_secret(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever runs the pipeline can tell it at any time."""
    assert main(["erase", "key", "--settings", str(settings)]) == 0
    assert capsys.readouterr().out.strip() == public_key(Identity(SECRET.encode()))


@pytest.mark.parametrize(("key", "code"), [(public_key(IDENTITY), 0), (public_key(Identity(b"other")), 1)])
def test_a_report_is_verified(key: str, code: int, tmp_path: Path) -> None:
    """Genuine is 0, anything else is not."""
    file = tmp_path / "report.json"
    file.write_bytes(signed(REPORT, IDENTITY))
    assert main(["erase", "verify", str(file), "--key", key]) == code
