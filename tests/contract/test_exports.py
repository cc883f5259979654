"""What `pipeline topics export` writes, judged by the standards' own tools."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_data_contract_standard
import orjson
import pytest
import yaml
from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
from open_data_contract_standard.model import OpenDataContractStandard

from pipeline.cli import main
from pipeline.cli.cluster import wanted_topics
from pipeline.settings import Settings
from pipeline.topics import load
from tests.contract import standards

TOPICS = load()
PUBLIC = {name: topic for name, topic in TOPICS.items() if topic.visibility == "public"}
TEAM = ("--subscriber", "growth=contacts.enriched,activity.enriched")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.setenv("PIPELINE_APPLICATION_ID", "pipeline")


def exported(folder: Path, *arguments: str) -> Path:
    """*folder* with what the command writes."""
    assert main(["topics", "export", *arguments, str(folder), "--profile", "production"]) == 0
    return folder


def read_all(file: Path) -> list[dict[str, Any]]:
    """The documents of a YAML *file*."""
    return list(yaml.safe_load_all(file.read_text()))


# ---------------------------------------------------------------- AsyncAPI


def test_the_asyncapi_document_is_valid_for_the_official_parser(tmp_path: Path) -> None:
    """Every public topic is a channel with its Kafka binding, and every type a message on it."""
    told = standards.asyncapi(exported(tmp_path, "--asyncapi") / "asyncapi.json")
    wrong = [problem for problem in told["problems"] if problem["severity"] < 2]
    assert (told["valid"], wrong) == (True, [])
    assert sorted(told["channels"]) == sorted(PUBLIC)
    assert set(told["partitions"]) == {24}
    assert told["operations"] == ["send"] * len(PUBLIC)
    assert {name for topic in PUBLIC.values() for name in topic.types} - {"raw"} <= set(told["messages"])


@pytest.mark.parametrize("broken", ["binding", "reference", "schema"])
def test_the_parser_refuses_what_is_broken(tmp_path: Path, broken: str) -> None:
    """So the test above can fail: a binding, a reference or a schema that is none is found."""
    file = exported(tmp_path, "--asyncapi") / "asyncapi.json"
    document = orjson.loads(file.read_bytes())
    tags = document["channels"]["users.tags"]
    match broken:
        case "binding":
            tags["bindings"]["kafka"]["partitions"] = -1
        case "reference":
            tags["messages"]["users.tag.v1"]["$ref"] = "#/components/messages/none"
        case _:
            document["components"]["schemas"]["users.tag.v1"]["properties"]["tenant"]["type"] = "text"
    file.write_bytes(orjson.dumps(document))
    assert [problem for problem in standards.asyncapi(file)["problems"] if problem["severity"] < 2]


def test_examples_fit_the_schemas_in_asyncapis_dialect(tmp_path: Path) -> None:
    """They are not changed by what is left out of them for draft 07; the parser does not look."""
    document = orjson.loads((exported(tmp_path, "--asyncapi") / "asyncapi.json").read_bytes())
    components = document["components"]
    for name, message in components["messages"].items():
        Draft7Validator.check_schema(message["payload"])
        validator = Draft7Validator({"allOf": [message["payload"]], "components": components})
        for example in message.get("examples", ()):
            assert [f"{name}: {error.message}" for error in validator.iter_errors(example["payload"])] == []
            assert list(validator.iter_errors({**example["payload"], "tenant": 7}))


# ---------------------------------------------------------------- Strimzi


@pytest.fixture(scope="module")
def crds() -> dict[str, Draft202012Validator]:
    """Kind -> the schema of its CRD, closed as Kubernetes' strict validation has it."""
    made = standards.strimzi_crds()
    versions = {kind: crd["spec"]["versions"] for kind, crd in made.items()}
    assert {kind: [each["name"] for each in found] for kind, found in versions.items()} == {
        "KafkaTopic": ["v1"],
        "KafkaUser": ["v1"],
    }
    return {
        kind: Draft202012Validator(closed(found[0]["schema"]["openAPIV3Schema"]))
        for kind, found in versions.items()
    }


def closed(part: Any) -> Any:
    """*part* of a schema that refuses fields which it does not name, metadata aside."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {name: closed(value) for name, value in part.items()}
    if isinstance(part.get("properties"), dict) and not part.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def errors(crds: dict[str, Draft202012Validator], made: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with *made* by their CRDs."""
    for each in made:
        for error in crds[each["kind"]].iter_errors(each):
            yield f"{each['metadata']['name']}: {error.json_path}: {error.message}"


def test_strimzi_takes_topics_and_users(tmp_path: Path, crds: dict[str, Draft202012Validator]) -> None:
    """Each topic and changelog with its size and configs, each user with its rights."""
    folder = exported(tmp_path, "--strimzi", *TEAM)
    topics, users = read_all(folder / "topics.yaml"), read_all(folder / "users.yaml")
    assert list(errors(crds, [*topics, *users])) == []
    wanted = {topic.name: topic for topic in wanted_topics(Settings(profile="production"))}
    assert {each["spec"]["topicName"]: each["spec"]["config"] for each in topics} == {
        name: topic.configs for name, topic in wanted.items()
    }
    assert {each["metadata"]["name"] for each in topics} == set(wanted)
    assert {each["metadata"]["name"] for each in users} >= {"growth", "pipeline-decode", "pipeline-receiver"}
    assert {each["spec"]["replicas"] for each in topics} == {3}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("topics", {"spec": {"partitions": 0}}),
        ("topics", {"spec": {"partition": 3}}),
        ("users", {"spec": {"authentication": {"type": "password"}}}),
        ("users", {"spec": {"authorization": {"type": "simple", "acls": [{"operations": ["Peek"]}]}}}),
    ],
)
def test_strimzi_refuses_what_it_does_not_know(
    tmp_path: Path, crds: dict[str, Draft202012Validator], kind: str, change: dict[str, Any]
) -> None:
    """So the test above can fail."""
    (resource, *_) = read_all(exported(tmp_path, "--strimzi") / f"{kind}.yaml")
    assert list(errors(crds, [{**resource, **change}]))


# ---------------------------------------------------------------- Open Data Contract Standard


def schema_of_odcs() -> dict[str, Any]:
    """The standard's own schema, as its package carries it."""
    file = Path(open_data_contract_standard.__file__).with_name("schema.json")
    found: dict[str, Any] = orjson.loads(file.read_bytes())
    return found


def test_each_public_topic_has_a_valid_data_contract(tmp_path: Path) -> None:
    """By the standard's schema and by its own model, which reads nothing that it does not know."""
    validator = Draft201909Validator(schema_of_odcs())
    folder = exported(tmp_path, "--odcs")
    assert {file.name.removesuffix(".odcs.yaml") for file in folder.iterdir()} == set(PUBLIC)
    for file in folder.iterdir():
        plain = yaml.safe_load(file.read_text())
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(plain)] == []
        read = OpenDataContractStandard.from_file(str(file))
        assert read.schema_ is not None
        assert [each.name for each in read.schema_] == list(PUBLIC[str(read.name)].types)


def test_a_data_contract_says_who_is_told_of_how_fresh_and_whom_to_ask(tmp_path: Path) -> None:
    """Classification, owner, freshness, retention and support are those of topics.yaml and the types."""
    file = exported(tmp_path, "--odcs") / "contacts.enriched.odcs.yaml"
    made = yaml.safe_load(file.read_text())
    classes = {each["name"]: each.get("classification") for each in made["schema"][0]["properties"]}
    assert (classes["mobile"], classes["contact_key"], classes["tenant"]) == ("direct", "pseudonym", "none")
    sla = {each["property"]: each["value"] for each in made["slaProperties"]}
    assert sla == {"freshness": TOPICS.service.freshness_ms // 1000, "retention": "unlimited"}
    needed = {each["name"]: each["required"] for each in made["schema"][0]["properties"]}
    assert (needed["tenant"], needed["first_name"]) == (True, False)
    assert (made["team"]["name"], made["support"][0]["channel"]) == ("pipeline", TOPICS.service.support)


def test_a_data_contract_that_is_none_is_refused(tmp_path: Path) -> None:
    """So the test above can fail."""
    plain = yaml.safe_load((exported(tmp_path, "--odcs") / "users.tags.odcs.yaml").read_text())
    plain["schema"][0]["properties"][0]["logicalType"] = "text"
    assert list(Draft201909Validator(schema_of_odcs()).iter_errors(plain))


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("arguments", [[], ["--odcs", "--acls"]])
def test_one_thing_is_exported_at_a_time(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It says what can be."""
    assert main(["topics", "export", *arguments]) == 2
    assert "--schemas | --asyncapi | --strimzi | --acls | --odcs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("growth", "TEAM=TOPIC"),
        ("growth=contacts.enrichd", "did you mean 'contacts.enriched'"),
        ("growth=meta", "no public topic 'meta'"),
    ],
)
def test_a_subscriber_reads_public_topics(given: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is granted what no contract covers."""
    assert main(["topics", "export", "--acls", "--subscriber", given]) == 2
    assert told in capsys.readouterr().err
