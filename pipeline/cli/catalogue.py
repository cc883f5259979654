"""`pipeline topics docs`: the topics as pages to read."""

from pathlib import Path

from pipeline.cli.output import print_json
from pipeline.errors import ConfigError
from pipeline.topics import load

__all__ = ["docs"]


def docs(folder: Path | None = None, *, json: bool = False) -> None:
    """
    Write a page for each public topic, and an index: open index.html, or put the folder on any web server.

    A page says what the topic means, its key, every field, a masked record, how long it is kept, how to
    subscribe in Python, Java, Go and with kcat, and the access to ask for. The pages ask nothing of
    elsewhere, and are the same bytes for the same version.

    Parameters
    ----------
    folder
        Where to; made if it is not there. Default: topics-docs.
    json
        Print one JSON object.
    """
    from pipeline.catalogue import site  # noqa: PLC0415 - other commands need no story

    target = folder or Path("topics-docs")
    try:
        names = site.write(load(), target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    if json:
        print_json("docs", folder=str(target), files=names)
    else:
        pages = sum(name.endswith(".html") for name in names)
        print(f"Wrote {pages} pages to {target}; open {target / 'index.html'}.")
