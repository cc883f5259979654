"""docs/ and deploy/ against the code: example records decode, example settings load."""

import re
from pathlib import Path
from typing import Any

import certifi
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline import preflight
from pipeline.codec import Codec, Record
from pipeline.settings import load
from pipeline.topics import load as load_topics

ROOT = Path(__file__).parents[2]
SUBSCRIBE = (ROOT / "docs" / "subscribe.md").read_text()
EXAMPLE = (ROOT / "deploy" / "pipeline.example.yaml").read_text()
TOPICS = load_topics()
PUBLIC = [name for name, topic in TOPICS.items() if topic.visibility == "public"]

#: Topic -> the text below its heading.
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", SUBSCRIBE, re.MULTILINE | re.DOTALL))


def example(topic: str) -> dict[str, Any]:
    """The example record of *topic*."""
    found = re.search(r"```json\n(.*?)```", SECTIONS[topic], re.DOTALL)
    assert found is not None
    record: dict[str, Any] = orjson.loads(found[1])
    return record


def as_read(topic: str, told: dict[str, Any]) -> Record:
    """The record that *told* describes, as a consumer would give it."""
    headers = tuple((name, text.encode()) for name, text in told["headers"].items())
    return Record(topic, 0, 0, told["timestamp"], told["key"].encode(), orjson.dumps(told["value"]), headers)


def test_every_public_topic_is_shown() -> None:
    """docs/subscribe.md has a section for each public topic, in the order of topics.yaml, and no other."""
    assert list(SECTIONS) == PUBLIC


@pytest.mark.parametrize("topic", PUBLIC)
def test_an_example_is_a_record_of_its_topic(topic: str) -> None:
    """The codec accepts the example, as a type that may stand there."""
    told = example(topic)
    event = Codec(TOPICS, 1).decode(as_read(topic, told))
    assert event.key == told["key"]
    assert TOPICS[topic].types == ("raw",) or event.type in TOPICS[topic].types


@pytest.mark.parametrize("topic", PUBLIC)
def test_a_section_tells_key_and_types(topic: str) -> None:
    """Key and types are those of topics.yaml."""
    assert f"- Key: {TOPICS[topic].key}\n" in SECTIONS[topic]
    named = set(re.findall(r"`([a-z.-]+\.v\d+)`", SECTIONS[topic]))
    assert named == set(TOPICS[topic].types) - {"raw"}


def filled_in(folder: Path) -> Path:
    """The example settings with every file that they name in *folder*; secrets have 64 characters."""
    for name in re.findall(r"/run/secrets/pipeline/([a-z-]+)", EXAMPLE):
        (folder / name).write_text("0123456789abcdef" * 4)
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    (folder / "users-api.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (folder / "kafka-ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    file = folder / "pipeline.yaml"
    file.write_text(re.sub(r"/run/secrets/pipeline|/etc/pipeline", str(folder), EXAMPLE))
    return file


def test_the_example_settings_lack_only_what_must_be_filled_in(tmp_path: Path) -> None:
    """With the secrets in their files, preflight asks for the webhook secret's digest and nothing else."""
    problems = list(preflight.problems(load(filled_in(tmp_path))))
    assert [problem.partition(":")[0] for problem in problems] == [
        "tenants.acme.sakari.0.webhook_secrets_sha256"
    ]


def test_the_example_settings_filled_in_are_accepted(tmp_path: Path) -> None:
    """With the digest filled in as the example says, nothing is left to ask for."""
    file = filled_in(tmp_path)
    file.write_text(file.read_text().replace("_sha256: []", f'_sha256: ["{"0" * 64}"]'))
    settings = load(file)
    preflight.check(settings)
    assert settings.profile == "production"


def test_the_example_settings_without_secrets_name_the_file(tmp_path: Path) -> None:
    """Where the identity secret's file is missing, the problem names setting and file."""
    file = filled_in(tmp_path)
    (tmp_path / "identity").unlink()
    problems = list(preflight.problems(load(file)))
    assert any(p.startswith("identity_secret: ") and str(tmp_path) in p for p in problems)


def test_the_commented_source_of_the_example_loads(tmp_path: Path) -> None:
    """The source that the example shows in comments is one that can be used."""
    file = filled_in(tmp_path)
    before, _, source = file.read_text().partition("sources: {}")
    file.write_text(f"{before}sources:{source.replace('#  ', '  ')}")
    assert load(file).sources["sightmill"].phone_path == "phone"
