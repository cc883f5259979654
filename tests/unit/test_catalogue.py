"""The pages of the topics: complete, whole, safe, always the same, and without a person in them."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from pipeline.catalogue.fields import rows
from pipeline.catalogue.markup import Html, element, joined
from pipeline.catalogue.pages import snippets, topic_page
from pipeline.catalogue.site import files, sample_of
from pipeline.catalogue.story import samples
from pipeline.cli import main
from pipeline.contracts.schemas import schemas
from pipeline.events import TYPES
from pipeline.events.personal import classified
from pipeline.topics import Deprecation, load

TOPICS = load()
PUBLIC = [topic for topic in TOPICS.values() if topic.visibility == "public"]
PAGES = ["index.html", *(f"{topic.name}.html" for topic in PUBLIC)]

#: What stages make of webhooks and polls of the story.
TOLD = {
    "sources.received", "sakari.events", "users.events", "sakari.contacts", "users.contacts", "users.tags",
    "contacts.enriched", "activity.enriched", "engagement.contacts", "engagement.metrics",
}  # fmt: skip
ADDRESS = re.compile(r"[\w.]+@[\w.]+|\+\d{8,}")
TELLING = re.compile(r"(first_?name|last_?name|email|number|phone|message|\.body|\.text)$", re.IGNORECASE)
VOID = {"meta", "input", "link"}


@lru_cache(maxsize=1)
def site() -> dict[str, bytes]:
    """Every file of the site."""
    return dict(files(TOPICS))


class Page(HTMLParser):
    """What a page consists of: tags that are not closed in order, ids, links, all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        if tag not in VOID:
            self.open.append(tag)
        told = dict(attrs)
        self.attributes |= told.keys()
        self.ids += [told["id"] or ""] if "id" in told else []
        self.links += [told["href"] or ""] if "href" in told else []

    def handle_endtag(self, tag: str) -> None:
        """It closes what was opened last."""
        assert self.open.pop() == tag


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of every text in *value*."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    elif isinstance(value, str):
        yield path, value


def test_every_public_topic_has_a_page_and_no_other() -> None:
    """And the index leads to each."""
    assert sorted(name for name in site() if name.endswith(".html")) == sorted(PAGES)
    assert set(PAGES) <= set(Page(site()["index.html"].decode()).links)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_its_links_lead_somewhere(name: str) -> None:
    """Tags are closed in order, ids are there once, a link leads to a file of the site and a place in it."""
    page = Page(site()[name].decode())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        file, _, place = link.partition("#")
        target = site()[file or name]
        assert not place or place in Page(target.decode()).ids, link


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nothing_of_elsewhere(name: str) -> None:
    """It forbids the browser to, and names no other place, picture or script; no markup runs code."""
    text = site()[name].decode()
    assert "default-src &#x27;none&#x27;" in text
    assert re.findall(r"""(?:src|href|action)=["'](?:\w+:|//)|url\(|@import""", text) == []
    assert not [each for each in Page(text).attributes if each.startswith("on") or each == "src"]


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_a_page_tells_all_that_a_subscriber_asks(topic: Any) -> None:
    """Meaning, key, every field, owner, how fresh, how long kept, how to read it, what access to ask for."""
    text = site()[f"{topic.name}.html"].decode()
    told: list[str] = [
        element("p", topic.description, class_="lead"),
        *(joined(t) for t in snippets(topic.name).values()),
    ]
    told += [element("dd", part) for part in (topic.key, topic.owner)]
    told += [element("code", topic.name), "99 of 100 live records", "Kept", f"my-team={topic.name}"]
    for name in set(topic.types) - {"raw"}:
        told += [element("code", row.path, class_="path") for row in rows(schemas()[name])]
    assert [part for part in told if part not in text] == []


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_field_of_a_type_has_a_row(name: str) -> None:
    """Those within others too, but for facts within facts: these have rows of their own."""
    paths = {row.path for row in rows(schemas()[name])}
    missing = [path for path in classified(TYPES[name]) if path not in paths]
    assert [path for path in missing if not path.startswith("event.")] == []
    assert all(row.description and row.kind for row in rows(schemas()[name]))


def test_the_story_tells_of_what_stages_write() -> None:
    """A record of each such topic is as the stages wrote it; of others there are examples."""
    assert samples().keys() >= TOLD
    found = {topic.name: sample_of(topic, TOPICS, samples()) for topic in PUBLIC}
    assert {name for name, sample in found.items() if sample and not sample.made_up} >= TOLD
    assert all(found[topic.name] for topic in PUBLIC if topic.types != ("raw",))


def test_no_sample_tells_of_a_person() -> None:
    """Nothing that the story's customers said of people, and nothing that looks like it."""
    bodies = [orjson.loads(record.value or b"{}") for record in [samples()["sources.received"]]]
    bodies += [orjson.loads(record.value or b"{}") for name, record in samples().items() if name in TOLD]
    people = {text for body in bodies for path, text in leaves(body) if TELLING.search(path)}
    people = {text for text in people if not re.fullmatch(r"[0-9a-f]{32}", text)}
    shown = [sample_of(topic, TOPICS, samples()) for topic in PUBLIC]
    texts = [text for each in shown if each for _, text in leaves(each.shown)]
    assert len(people) > 10
    assert [text for text in texts if text in people or ADDRESS.search(text)] == []


def test_of_raw_bytes_nothing_is_shown() -> None:
    """The headers alone."""
    sample = sample_of(TOPICS["sources.received"], TOPICS, samples())
    assert sample is not None
    assert sample.shown["value"] == "***"
    assert sample.shown["headers"]["ce_type"] == "sources.received.v1"


def test_the_pages_are_always_the_same() -> None:
    """Made by another process, with another order of hashes, they are the same bytes."""
    code = (
        "import hashlib; from pipeline.catalogue.site import files; from pipeline.topics import load;"
        "print(hashlib.sha256(b''.join(n.encode() + c for n, c in files(load()))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "17"}, capture_output=True, text=True,
        timeout=120, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    mine = hashlib.sha256(b"".join(name.encode() + content for name, content in site().items())).hexdigest()
    assert done.stdout.strip() == mine


def test_what_a_topic_says_cannot_become_markup() -> None:
    """Text is escaped wherever it stands, in attributes as well."""
    evil = '"><script>alert(1)</script>&amp;'
    topic = msgspec.structs.replace(TOPICS["users.tags"], description=evil, owner=evil, key=evil)
    text = topic_page(topic, TOPICS, None)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;") >= 3
    assert element("a", evil, title=evil).count("&quot;&gt;&lt;script") == 2
    assert joined(Html("<b>"), "<b>") == "<b>&lt;b&gt;"


def test_a_topic_that_ends_says_so() -> None:
    """With the day, and a link to the one to read instead."""
    ends = Deprecation(until="2031-01-31", instead="users.users")
    text = topic_page(msgspec.structs.replace(TOPICS["users.tags"], deprecated=ends), TOPICS, None)
    assert "Written until 2031-01-31" in text
    assert '<a href="users.users.html">users.users</a>' in text


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_programs_name_the_topic_and_read_what_is_committed(topic: Any) -> None:
    """In each language; the one in Python compiles."""
    texts = snippets(topic.name)
    assert [name for name, text in texts.items() if topic.name not in text or "@" in text] == []
    others = [text for name, text in texts.items() if not name.endswith(".py")]
    assert [text for text in others if not re.search("read_?committed", text, re.IGNORECASE)] == []
    compile(texts["subscribe.py"], "subscribe.py", "exec")


def test_docs_writes_the_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files; written again over itself it is the same."""
    for _ in range(2):
        assert main(["topics", "docs", str(tmp_path / "site"), "--json"]) == 0
    told = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    assert sorted(told["files"]) == sorted(site())
    assert {name: (tmp_path / "site" / name).read_bytes() for name in told["files"]} == site()


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and why."""
    (tmp_path / "file").touch()
    assert main(["topics", "docs", str(tmp_path / "file")]) == 2
    assert "cannot be written: " in capsys.readouterr().err
