"""The end of a topic: announced by a release, told in every record, and not before its day."""

from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline.cli import main
from pipeline.codec import Codec, Record, text_headers
from pipeline.contracts.asyncapi import document
from pipeline.contracts.breaches import Rule
from pipeline.contracts.odcs import contract
from pipeline.contracts.releases import Contract, breaches, current, releases, save
from pipeline.errors import ConfigError
from pipeline.events import LocationTag
from pipeline.stage import Emit, Event
from pipeline.topics import Deprecation, Topics, load, path

END = Deprecation(until="2030-12-31", instead="users.tags.v2")
TAG = LocationTag(tenant="acme", location_id="l", tag_id="1", name="VIP")
NOW = current()
SUCCESSOR = replace(NOW.topics["users.tags"], deprecated=None)


def ending(*changes: Deprecation | None) -> list[Contract]:
    """A release for each of *changes*: what it says of the end of users.tags, beside its successor."""
    return [
        replace(
            NOW,
            version=f"1.{number}.0",
            topics=NOW.topics
            | {"users.tags": replace(SUCCESSOR, deprecated=end), "users.tags.v2": SUCCESSOR},
        )
        for number, end in enumerate(changes)
    ]


def without_topic() -> Contract:
    """Today's contract, without users.tags, with its successor."""
    left = {name: topic for name, topic in NOW.topics.items() if name != "users.tags"}
    return replace(NOW, topics=left | {"users.tags.v2": SUCCESSOR})


def rules(released: list[Contract], today: str, now: Contract | None = None) -> list[Rule]:
    """The rules that *now*, by default without users.tags, breaks *today*."""
    return [each.rule for each in breaches(now or without_topic(), released, date.fromisoformat(today))]


def both() -> Codec:
    """A codec of users.tags, which ends, and of its successor."""
    topics = load()
    old = replace(topics["users.tags"], deprecated=END)
    new = replace(topics["users.tags"], name="users.tags.v2")
    made = {**topics, "users.tags": old, "users.tags.v2": new}
    return Codec(Topics(made.values(), topics.profiles.values(), topics.changelogs), 2)


def headers(topic: str, *, backfill: bool, value: LocationTag | None = TAG) -> dict[str, str]:
    """The headers of *value*, written to *topic*."""
    cause = Event[None](topic="", key="", value=None, id="c", received_at=7, backfill=backfill)
    output = both().encode(Emit(topic, "acme:1", value), cause, "decode", 0)[0]
    record = Record(output.topic, output.partition, 0, *output[2:5], tuple(output.headers))
    assert both().decode(record).value == value
    return text_headers(record.headers)


@pytest.mark.parametrize("backfill", [False, True])
@pytest.mark.parametrize("value", [TAG, None])
def test_every_record_of_a_topic_that_ends_says_so(*, backfill: bool, value: LocationTag | None) -> None:
    """Tombstones and backfilled ones too; those of the successor have all other headers and not these."""
    old = headers("users.tags", backfill=backfill, value=value)
    new = headers("users.tags.v2", backfill=backfill, value=value)
    told = {"ce_sunset": "2030-12-31T23:59:59.999Z", "ce_successor": "users.tags.v2"}
    assert {name: text for name, text in old.items() if name not in new} == told
    assert set(new) <= set(old)


def test_a_topic_goes_after_its_announced_day() -> None:
    """On the day itself it is still there."""
    released = ending(None, END)
    assert rules(released, "2030-12-31") == [Rule.TOPIC_REMOVED, Rule.TOPIC_REMOVED]
    assert rules(released, "2031-01-01") == []


@pytest.mark.parametrize("announced", [[None], [END, None]], ids=["never", "taken back"])
def test_a_topic_whose_end_no_release_announces_stays(announced: list[Deprecation | None]) -> None:
    """Whatever day it is: who reads it was not told, or was told that it stays."""
    assert set(rules(ending(*announced), "2099-01-01")) == {Rule.TOPIC_REMOVED}


def test_an_end_may_be_put_off_and_not_brought_forward() -> None:
    """Who planned by the day that was announced has that time."""
    later, earlier = replace(END, until="2031-03-01"), replace(END, until="2030-12-30")
    assert rules(ending(END), "2030-01-01", ending(later)[0]) == []
    assert rules(ending(END), "2030-01-01", ending(earlier)[0]) == [Rule.END_ADVANCED]
    assert rules(ending(END, later), "2031-01-15") == [Rule.TOPIC_REMOVED, Rule.TOPIC_REMOVED]


def test_an_announcement_is_kept_with_its_release(tmp_path: Path) -> None:
    """It is part of what is written, and read back."""
    (made,) = ending(END)
    save(made, tmp_path / "1.0.0")
    assert releases(tmp_path)[0].topics["users.tags"].deprecated == END


def changed(tmp_path: Path, lines: str) -> Path:
    """topics.yaml with *lines* in the entry of users.tags."""
    name = "  - name: users.tags\n"
    source = path().read_text()
    assert source.count(name) == 1
    (tmp_path / "topics.yaml").write_text(source.replace(name, name + lines))
    return tmp_path / "topics.yaml"


def test_topics_yaml_says_until_when_and_what_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `pipeline topics describe` shows it."""
    file = changed(tmp_path, "    deprecated: {until: 2030-12-31, instead: contacts.enriched}\n")
    assert load(file)["users.tags"].deprecated == Deprecation(until="2030-12-31", instead="contacts.enriched")
    monkeypatch.setattr("pipeline.topics.path", lambda: file)
    assert main(["topics", "describe", "users.tags", "--profile", "dev"]) == 0
    assert "until 2030-12-31; read contacts.enriched instead" in capsys.readouterr().out


def test_the_exports_say_that_a_topic_ends(tmp_path: Path) -> None:
    """In the words that AsyncAPI and the data contract standard have for it."""
    topics = load(changed(tmp_path, "    deprecated: {until: 2030-12-31, instead: contacts.enriched}\n"))
    channels = document(topics, topics.profile("dev"), "1.0.0")["channels"]
    assert channels["users.tags"]["description"].endswith("Ends 2030-12-31; read contacts.enriched instead.")
    assert "Ends" not in channels["users.users"]["description"]
    made = contract(topics["users.tags"], topics.service, "1.0.0", "localhost:9092")
    assert made["status"] == "deprecated"
    assert {"property": "endOfSupport", "value": "2030-12-31"} in made["slaProperties"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{until: 2030-02-30, instead: contacts.enriched}", "no day; allowed: a day, YYYY-MM-DD"),
        ("{until: soon, instead: contacts.enriched}", "allowed: a day, YYYY-MM-DD"),
        ("{until: 2030-12-31}", "deprecated.instead: is missing"),
        ("{until: 2030-12-31, instead: contacts.enrichd}", "did you mean 'contacts.enriched'"),
        ("{until: 2030-12-31, instead: users.tags}", "allowed: a public topic that is not deprecated"),
        ("{until: 2030-12-31, instead: meta}", "allowed: a public topic that is not deprecated"),
    ],
)
def test_an_end_that_leads_nowhere_is_refused(tmp_path: Path, given: str, told: str) -> None:
    """Its day must be one, and there must be something to read instead."""
    with pytest.raises(ConfigError, match="deprecated") as caught:
        load(changed(tmp_path, f"    deprecated: {given}\n"))
    assert told in str(caught.value)
