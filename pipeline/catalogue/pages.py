"""The pages: one for each public topic, and an index to find them by."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

import msgspec
import orjson

from pipeline.catalogue.fields import Row, rows
from pipeline.catalogue.markup import Html, element, joined
from pipeline.contracts.access import of_subscriber
from pipeline.contracts.schemas import Schema, schemas
from pipeline.topics import Topic, Topics

__all__ = ["TEAM", "Sample", "index", "snippets", "topic_page"]

#: Who subscribes in the examples.
TEAM: Final = "my-team"

_FOLDER: Final = Path(__file__).parent
_DAY_MS: Final = 86_400_000
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_PERSONAL: Final = {"direct": "personal data", "pseudonym": "stands for a person"}
_PARTITIONS: Final = {
    "key": "by the key",
    "prefix": "by the key up to its last |",
    "every": "a copy on each",
    "explicit": "by the producer",
}
#: Where a page has it, and what it is called.
_PARTS: Final = (
    ("record", "What stands in a record"),
    ("sample", "A record"),
    ("subscribe", "Subscribe"),
    ("access", "Access to ask for"),
)
#: Title, file, and what is to be known before it runs.
_SNIPPETS: Final = (
    (
        "Python",
        "subscribe.py",
        "Typed records. This project's base install is enough: pip install . in its folder.",
    ),
    (
        "Java",
        "Subscribe.java",
        "With Kafka's own client, org.apache.kafka:kafka-clients.",
    ),
    ("Go", "subscribe.go", "With github.com/twmb/franz-go, which needs no C library."),
    ("kcat", "kcat.sh", "For a look at all that is there, without a group. SERVERS is Kafka's host:port."),
)


@final
class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A record as a page shows it, masked; *made_up* where it is of the fields' examples, not of a story."""

    shown: Mapping[str, Any]
    made_up: bool = False


def index(topics: Topics) -> str:
    """The page from which all others are found, by name, meaning, type or field."""
    public = _public(topics)
    cards = [_card(topic) for topic in public]
    body = joined(
        element("h1", "Topics"),
        element(
            "p",
            "What the pipeline offers to other teams on Kafka. Each page says what a topic means, what stands"
            " in a record, how long it is kept, and how to read it.",
            class_="lead",
        ),
        _find("Find by name, meaning or field", ".cards li"),
        element("ul", cards, class_="cards"),
    )
    return _page("Topics", body, public, "")


def topic_page(topic: Topic, topics: Topics, sample: Sample | None) -> str:
    """All that is to be known of *topic* by those who read it."""
    body = joined(
        element("h1", topic.name),
        element("p", topic.description, class_="lead"),
        _deprecation(topic),
        _contents(),
        _facts(topic, topics),
        _record(topic, topics),
        _sample(sample),
        _subscribing(topic),
        _access(topic, topics),
    )
    return _page(topic.name, body, _public(topics), topic.name)


def snippets(topic: str) -> dict[str, str]:
    """Name of a file -> a program that reads *topic*; its first argument is Kafka's host:port."""
    return {
        file: (_FOLDER / "snippets" / f"{file}.txt").read_text(encoding="utf-8").replace("@TOPIC@", topic)
        for _, file, _ in _SNIPPETS
    }


# ---------------------------------------------------------------- parts of the index


def _card(topic: Topic) -> Html:
    kind = "A table:" if topic.is_table else "A log, kept"
    return element(
        "li",
        element("a", topic.name, href=f"{topic.name}.html"),
        element("p", topic.description),
        element("p", f"Key: {topic.key}", class_="soft"),
        element("p", f"{kind} {_kept(topic)}", class_="soft"),
        data_text=_searched(topic),
    )


def _searched(topic: Topic) -> str:
    """All by which *topic* is found."""
    words = [topic.name, topic.description, topic.key, topic.owner, _what(topic), *topic.types]
    made = _schemas()
    for name in topic.types:
        if name in made:
            words += [f"{row.path} {row.description}" for row in rows(made[name])]
    return " ".join(words).lower()


# ---------------------------------------------------------------- parts of a topic's page


def _deprecation(topic: Topic) -> Html:
    if topic.deprecated is None:
        return Html("")
    instead = element("a", topic.deprecated.instead, href=f"{topic.deprecated.instead}.html")
    told = f"Written until {topic.deprecated.until}, and can go after it. Read "
    return element("p", told, instead, " instead.", class_="note")


def _contents() -> Html:
    return element("p", [element("a", text, href=f"#{part}") for part, text in _PARTS], class_="contents")


def _facts(topic: Topic, topics: Topics) -> Html:
    seconds = topics.service.freshness_ms / 1_000
    told = (
        ("Key", topic.key),
        (
            "Value",
            "bytes as they came" if topic.types == ("raw",) else "JSON, UTF-8; a null field is unknown",
        ),
        ("Kind", _what(topic)),
        ("Kept", _kept(topic)),
        ("Fresh", f"99 of 100 live records are here {seconds:g} s after they were received, or sooner"),
        ("Partitions", f"{_PARTITIONS[topic.partitioned_by]}; {_counts(topic, topics)}"),
        ("Written by", ", ".join(topic.producers) or "-"),
        ("Owner", topic.owner),
        ("Questions", topics.service.support),
        ("Personal data", ", ".join(topic.personal) if topic.personal != ("*",) else "the whole value"),
    )
    return element("dl", [joined(element("dt", name), element("dd", text or "none")) for name, text in told])


def _record(topic: Topic, topics: Topics) -> Html:
    head = element("h2", "What stands in a record", id="record")
    if topic.types == ("raw",):
        told = "The bytes as they came from outside, in whatever form; the headers say where they are from."
        return joined(head, element("p", told))
    made = _schemas()
    several = len(topic.types) > 1
    what = "The header ce_type says which of these it is; skip what you do not know." if several else ""
    pages = {name: each.name for each in _public(topics) for name in each.types}
    types = [_type(name, made[name], pages) for name in topic.types]
    links = [element("li", element("a", name, href=f"#{name}")) for name in topic.types]
    return joined(
        head,
        element("p", what) if what else "",
        element("ul", links) if several else "",
        _find("Find a field", ".fields li"),
        types,
    )


def _type(name: str, schema: Schema, pages: Mapping[str, str]) -> Html:
    link = element("a", "JSON Schema", href=f"schemas/{name}.json")
    return element(
        "section",
        element("h3", element("code", name), id=name),
        element("p", schema.get("description", ""), " ", link),
        element("ul", [_field(row, pages) for row in rows(schema)], class_="fields"),
    )


def _field(row: Row, pages: Mapping[str, str]) -> Html:
    person = _PERSONAL.get(row.personal, "")
    kind = "person" if row.personal == "direct" else ""
    badge = element("span", person, class_=f"badge {kind}".strip()) if person else ""
    unit = f" · {row.unit}" if row.unit else ""
    told = ""
    if row.known:
        told = joined(" · known: ", _listed(row.known, pages))
    elif row.example:
        told = joined(" · such as ", element("code", row.example))
    return element(
        "li",
        element("code", row.path, class_="path"),
        element("div", row.description, " ", badge),
        element("p", f"{row.kind}{unit}", told, class_="more"),
        data_text=f"{row.path} {row.description} {' '.join(row.known)}".lower(),
    )


def _listed(known: Sequence[str], pages: Mapping[str, str]) -> Html:
    """*known* values; those that are types lead to where they are told of."""
    parts = [
        element("a", element("code", value), href=f"{pages[value]}.html#{value}")
        if value in pages
        else element("code", value)
        for value in known
    ]
    return joined(*(joined(", " if number else "", part) for number, part in enumerate(parts)))


def _sample(sample: Sample | None) -> Html:
    head = element("h2", "A record", id="sample")
    if sample is None:
        return joined(head, element("p", "There is none to show."))
    told = (
        "Made of the examples of its fields."
        if sample.made_up
        else "Of a made-up story, as the stages write it. What tells of a person is masked here: ***."
    )
    text = orjson.dumps(sample.shown, option=orjson.OPT_INDENT_2).decode()
    return joined(head, element("p", told), _code(text, "a record"))


def _subscribing(topic: Topic) -> Html:
    texts = snippets(topic.name)
    table = (
        f" Without a group, as a table that keeps itself current: pipeline.subscribe.table({topic.name!r})."
        if topic.is_table
        else ""
    )
    parts = [
        joined(
            element("h3", title),
            element("p", f"{text}{table if title == 'Python' else ''}"),
            _code(texts[file], f"{title}: {file}"),
        )
        for title, file, text in _SNIPPETS
    ]
    common = (
        "Read with isolation level read_committed, or you see what was taken back. Begin with earliest: "
        + ("that is the whole table." if topic.is_table else "that is all that is kept.")
        + f" Use a group of your own in place of {TEAM}. The programs take Kafka's host:port."
    )
    return joined(element("h2", "Subscribe", id="subscribe"), element("p", common), parts)


def _access(topic: Topic, topics: Topics) -> Html:
    grants = of_subscriber(TEAM, [topic.name])
    lines = [
        element(
            "tr",
            element("td", grant.kind),
            element("td", element("code", grant.name), " and what begins so" if grant.prefixed else ""),
            element("td", ", ".join(grant.operations)),
        )
        for grant in grants
    ]
    head = element("tr", element("th", "resource"), element("th", "name"), element("th", "operations"))
    command = f"pipeline topics export --acls --subscriber {TEAM}={topic.name}"
    return joined(
        element("h2", "Access to ask for", id="access"),
        element("p", f"Ask {topics.service.support}, with the name of your team in place of {TEAM}."),
        element("div", element("table", head, lines), class_="tables"),
        element("p", "Its owner makes them with"),
        _code(command, "command"),
    )


# ---------------------------------------------------------------- of all pages


def _page(title: str, body: Html, public: Sequence[Topic], here: str) -> str:
    script = Html((_FOLDER / "site.js").read_text(encoding="utf-8"))
    style = Html((_FOLDER / "site.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title if not here else f"{title} · topics"),
        element("style", style),
    )
    frame = element("div", _navigation(public, here), element("main", body), class_="frame")
    page = element("html", head, element("body", frame, element("script", script)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _navigation(public: Sequence[Topic], here: str) -> Html:
    links = [
        element(
            "li",
            element("a", topic.name, href=f"{topic.name}.html", **_current(topic.name == here)),
        )
        for topic in public
    ]
    home = element("a", "All topics", href="index.html", class_="home")
    listed = element("details", element("summary", "Topics"), element("ul", links), open=True)
    label = "Find a topic or field"
    box = element("input", type="search", name="q", placeholder=label, aria_label=label)
    search = element("form", box, action="index.html") if here else ""
    return element("nav", home, search, listed, aria_label="Topics")


def _current(is_here: bool) -> dict[str, str]:
    return {"aria_current": "page"} if is_here else {}


def _find(label: str, items: str) -> Html:
    box = element(
        "input", type="search", placeholder=label, aria_label=label, data_filter=items, data_count="found"
    )
    return element("div", box, element("span", "", id="found", class_="soft", role="status"), class_="find")


def _code(text: str, label: str) -> Html:
    return element(
        "div", element("pre", element("code", text), tabindex="0", aria_label=label), class_="block"
    )


def _public(topics: Topics) -> list[Topic]:
    return [topic for topic in topics.values() if topic.visibility == "public"]


def _what(topic: Topic) -> str:
    return (
        "a table: the last record of a key is its state, a null value its end" if topic.is_table else "a log"
    )


def _kept(topic: Topic) -> str:
    days = None if topic.retention_ms is None else f"{topic.retention_ms / _DAY_MS:g} days"
    if not topic.is_table:
        return f"for {days}" if days else "for ever"
    return f"the last record of each key for {days}" if days else "the last record of each key for ever"


def _counts(topic: Topic, topics: Topics) -> str:
    counts = (
        f"{topics.partitions(topic.name, profile)} under {profile.name}"
        for profile in topics.profiles.values()
    )
    return ", ".join(counts)


@lru_cache(maxsize=1)
def _schemas() -> dict[str, Schema]:
    return schemas()
