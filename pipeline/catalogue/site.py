"""The pages as files: the same bytes for the same topics, types and story."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.catalogue.pages import Sample, index, topic_page
from pipeline.catalogue.story import samples
from pipeline.codec import Record
from pipeline.contracts.schemas import as_bytes, example, schemas
from pipeline.masking import masked
from pipeline.tail.columns import Viewer
from pipeline.topics import Topic, Topics

__all__ = ["files", "sample_of", "write"]


def files(topics: Topics) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of the site; links are relative, nothing is asked of elsewhere."""
    told = samples()
    yield "index.html", index(topics).encode()
    public = [topic for topic in topics.values() if topic.visibility == "public"]
    for topic in public:
        page = topic_page(topic, topics, sample_of(topic, topics, told))
        yield f"{topic.name}.html", page.encode()
    used = {name for topic in public for name in topic.types}
    for name, schema in schemas().items():
        if name in used:
            yield f"schemas/{name}.json", as_bytes(schema)


def write(topics: Topics, folder: Path) -> list[str]:
    """Write the site into *folder*, and return the names of its files; what else is there stays."""
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    names = []
    for name, content in files(topics):
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def sample_of(topic: Topic, topics: Topics, told: Mapping[str, Record]) -> Sample | None:
    """The masked record of *topic* among *told*, else an example; None where neither is to be had."""
    record = told.get(topic.name)
    if record is not None:
        shown = Viewer(topics, unmask=False).shown(record)
        return Sample(shown={name: part for name, part in shown.items() if name != "value_bytes"})
    if topic.types == ("raw",):
        return None
    value = masked(example(topic.types[0]), topic.types[0])
    return Sample(
        shown={"topic": topic.name, "headers": {"ce_type": topic.types[0]}, "value": value}, made_up=True
    )
