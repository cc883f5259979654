"""The tree of errors: each class has its disposition, and the module's docstring is the tree."""

import re
from collections.abc import Iterator

import pytest

from pipeline import errors
from pipeline.errors import Disposition, PipelineError

DISPOSITIONS = {
    "ConfigError": Disposition.EXIT,
    "RecordError": Disposition.DEAD_LETTER,
    "UpstreamError": Disposition.BACK_OFF,
    "Unavailable": Disposition.BACK_OFF,
    "Throttled": Disposition.BACK_OFF,
    "Rejected": Disposition.DEAD_LETTER,
    "BrokerError": Disposition.REBUILD,
    "StageFailed": Disposition.STOP,
    "Stuck": Disposition.EXIT,
    "WebhookError": Disposition.ANSWER,
}


def _below(kind: type[PipelineError]) -> Iterator[type[PipelineError]]:
    for one in kind.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from _below(one)


def test_every_error_has_its_disposition() -> None:
    """A class more needs a decision more."""
    assert {one.__name__: one.disposition for one in _below(PipelineError)} == DISPOSITIONS


def test_every_disposition_is_somebodys() -> None:
    """Nothing is left that no error asks for."""
    assert set(DISPOSITIONS.values()) == set(Disposition)


def test_the_docstring_is_the_tree() -> None:
    """Names, dispositions and who is below whom."""
    told = re.findall(r"^    ([│├└─ ]*)(\w+) +([A-Z_]+) ", errors.__doc__ or "", re.MULTILINE)
    assert {name: Disposition[disposition] for _, name, disposition in told} == DISPOSITIONS
    depths = {name: len(indent) for indent, name, _ in told}
    for one in _below(PipelineError):
        parent = one.__mro__[1].__name__
        assert depths[one.__name__] > depths.get(parent, 0)


def test_every_error_is_public() -> None:
    """Whoever catches one can import it."""
    assert set(errors.__all__) == {*DISPOSITIONS, "PipelineError", "Disposition"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.ConfigError("one"), "one"),
        (errors.ConfigError(["one", "two"]), "one\ntwo"),
        (errors.RecordError("too-large"), "too-large"),
        (errors.RecordError("too-large", "a record of 9 bytes"), "a record of 9 bytes"),
        (errors.Rejected(422, "no name"), "status 422: no name"),
        (errors.Throttled("slow down", 3.0), "slow down"),
        (errors.WebhookError(413, "too large"), "too large"),
    ],
)
def test_an_errors_text_is_for_people(error: PipelineError, text: str) -> None:
    """It says what is wrong, and never a tuple of arguments."""
    assert str(error) == text
