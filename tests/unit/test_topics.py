"""topics.yaml: read into values, refused with every problem at its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.topics import Topics, _parsed, load, path

GOOD = path().read_text()
PERSONAL = ("message.text", "message.country", "error", "body")


def problems(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    """What is told of topics.yaml after *changes*: each text is replaced where it first stands."""
    source = GOOD
    for old, new in changes:
        assert old in source
        source = source.replace(old, new, 1)
    file = tmp_path / "topics.yaml"
    file.write_text(source)
    with pytest.raises(ConfigError) as raised:
        load(file)
    return list(raised.value.problems)


def line_of(text: str, source: str = GOOD) -> int:
    """The number of the first line of *source* that holds *text*."""
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


@pytest.fixture(scope="module")
def topics() -> Topics:
    """The project's own topics."""
    return load()


def test_a_topic_is_read_whole(topics: Topics) -> None:
    """Every field of an entry is there, durations in milliseconds, lists as tuples."""
    events = topics["sakari.events"]
    assert (events.key, events.partitioned_by, events.cleanup) == ("contact key", "key", ("delete",))
    assert (events.retention_ms, events.personal) == (90 * 86_400_000, PERSONAL)
    assert (events.is_table, events.by_prefix, events.partitions) == (False, False, None)


def test_a_compacted_topic_is_a_table(topics: Topics) -> None:
    """``compact`` in any combination makes a table; the contacts are partitioned by their prefix."""
    assert topics["engagement.metrics"].is_table
    assert topics["sakari.contacts"].is_table
    assert topics["sakari.contacts"].by_prefix


def test_every_stage_has_a_redrive_topic(topics: Topics) -> None:
    """Redrive topics are topics as all others, of raw bytes, read by their stage alone."""
    redrive = topics.redrive("decode")
    assert topics["decode.redrive"] is redrive
    assert (redrive.types, redrive.consumers, redrive.retention_ms) == (("raw",), ("decode",), 7 * 86_400_000)


def test_a_stage_without_redrive_is_told(topics: Topics) -> None:
    """The error says where to add it."""
    with pytest.raises(ConfigError, match=r"add it to redrive\.stages"):
        topics.redrive("nobody")


def test_profiles_give_sizes(topics: Topics) -> None:
    """A topic without a count of its own has the profile's."""
    dev, production = topics.profile("dev"), topics.profile("production")
    assert (topics.partitions("sakari.events", dev), topics.partitions("sakari.events", production)) == (
        2,
        24,
    )
    assert topics.partitions("tokens", production) == 1


def test_an_unknown_profile_is_told(topics: Topics) -> None:
    """The error names the profiles, and the one that was probably meant."""
    with pytest.raises(ConfigError, match=r"did you mean 'production'\?; allowed: dev \| production"):
        topics.profile("produktion")


def test_inputs_are_what_shares_partitions(topics: Topics) -> None:
    """What a consumer reads as a whole, such as tokens, is no input in that sense."""
    names = {topic.name for topic in topics.inputs("statistics")}
    assert names == {"contacts.enriched", "engagement.contacts", "engagement.metrics", "statistics.redrive"}


def test_all_problems_are_told_at_once_in_order(tmp_path: Path) -> None:
    """Nobody has to fix one problem to see the next."""
    told = problems(
        tmp_path,
        ("version: 1", "version: 2"),
        ("owner: pipeline", "owner: [pipeline]"),
        ("retention: 30d", "retention: 30 days"),
        ("cleanup: compact\n", "cleanup: compactt\n"),
    )
    lines = [int(problem.split(":")[1]) for problem in told]
    assert len(told) == 4
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("cleanup: delete", "cleanup: remove", "cleanup: 'remove' is not allowed"),
        ("cleanup: delete", "cleanup: delet", "did you mean 'delete'?; allowed: delete | compact"),
        ("retention: 90d", "retentoin: 90d", "retentoin: unknown field; did you mean 'retention'"),
        ("retention: 90d", "retention: 90", "retention: '90' has the wrong type; allowed"),
        ("retention: 90d", "retention: 1.5h", "'1.5h' is no duration; allowed: a whole number and a unit"),
        ("retention: 90d", "partitions: 3", "retention: is missing; cleanup"),
        ("retention: 90d", "personal: [body]", "personal: is said by the fields of the types"),
        ("key: contact key", "key: 7", "key: '7' has the wrong type; allowed: text"),
        ("key: contact key", "key:", "key: nothing has the wrong type"),
        ("owner: pipeline", "partitions: 0", "partitions: 0 is not allowed; allowed: a"),
        ("owner: pipeline", "own: x", "owner: is missing"),
        ("sakari.other.v1", "sakari.othr.v1", "'sakari.othr.v1'; did you mean 'sakari.other.v1'?"),
        ("- sakari.other.v1", "- raw", "types: raw stands alone"),
        ("consumers: [enrich]", "consumers: enrich", "consumers: must be a list"),
        ("consumers: [enrich]", "consumers: [Enrich]", "consumers[0]: 'Enrich' is not allowed"),
        ("visibility: public", "visibility: public\n    visibility: public", "visibility: stands here twice"),
        ("name: users.events", "name: sakari.events", "the name is taken by line"),
    ],
)  # fmt: skip
def test_a_problem_names_place_and_what_is_allowed(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Each kind of mistake in the entry of sakari.events is told in one line."""
    head, entry = GOOD.split("  - name: sakari.events", 1)
    assert old in entry
    source = f"{head}  - name: sakari.events{entry.replace(old, new, 1)}"
    (tmp_path / "topics.yaml").write_text(source)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "topics.yaml")
    named = [problem for problem in raised.value.problems if "topics[sakari.events]" in problem]
    assert any(told in problem for problem in named)


def test_the_line_is_that_of_the_mistake(tmp_path: Path) -> None:
    """File and line stand first, so that an editor can jump there."""
    (problem,) = problems(tmp_path, ("retention: 30d", "retention: soon"))
    assert problem.startswith(
        f"topics.yaml:{line_of('retention: 30d')}: topics[sources.received].retention: "
    )


def test_inputs_with_unequal_partitions_are_refused(tmp_path: Path) -> None:
    """All inputs of a stage share one count; the error shows who has which."""
    told = problems(tmp_path, ("key: partition number", "key: partition number\n    partitions: 3"))
    assert {problem.split(": ")[2].split(" must")[0] for problem in told} == {
        "the inputs of decode",
        "the inputs of engagement",
        "the inputs of rollup",
    }
    assert "clock.ticks 3" in told[0]


def test_more_min_isr_than_replicas_is_refused(tmp_path: Path) -> None:
    """Such a topic could never be written."""
    (problem,) = problems(tmp_path, ("replication: 3", "replication: 1"))
    assert "profiles.production.min_insync_replicas: 2 is more than replication; allowed: 1 to 1" in problem


def test_retention_of_a_compacted_topic_is_refused(tmp_path: Path) -> None:
    """It would have no effect, and who wrote it expects one."""
    (problem,) = problems(tmp_path, ("cleanup: compact\n", "cleanup: compact\n    retention: 9d\n"))
    assert "retention: has no effect with cleanup compact" in problem


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "topics.yaml:1: is empty"),
        ("a: [1", ": is no YAML: "),
        ("- a", "must be a mapping, not a list"),
        ("version: 1\ntopics: 7\nprofiles: []\n", "topics: must be a list, not a single value"),
        ("? [a]\n: 1\n", "a name must be text, not a list"),
        ("topics: [7, {name: a, types: 3}]", "topics[0]: must be a mapping, not a single value"),
    ],
)
def test_what_is_no_table_of_topics_is_refused(tmp_path: Path, source: str, told: str) -> None:
    """Whatever the file holds, the answer is a ConfigError that names it."""
    (tmp_path / "topics.yaml").write_text(source)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "topics.yaml")
    assert any(told in problem for problem in raised.value.problems)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a ConfigError as well."""
    (tmp_path / "topics.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(tmp_path / "topics.yaml")


@given(
    st.integers(0, GOOD.count("\n") - 1),
    st.sampled_from(["", "  x: 1", "- y", "    key: [1, {}]", "7", "    types: {a: 1}", "  stages: x", "\t"]),
)
def test_a_damaged_line_is_read_or_told_but_never_crashes(number: int, damage: str) -> None:
    """Whatever one line becomes, the file is read or a ConfigError names lines of it."""
    lines = GOOD.splitlines()
    lines[number] = damage
    told: tuple[str, ...] = ()
    try:
        _parsed("\n".join(lines), "topics.yaml")
    except ConfigError as error:
        told = error.problems
    assert all(problem.startswith("topics.yaml:") for problem in told)
