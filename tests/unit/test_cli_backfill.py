"""`pipeline backfill` before it reaches anything: what it refuses, and what its plan says."""

import orjson
import pytest

from pipeline.cli import backfill, main
from pipeline.instants import Time
from pipeline.settings import Settings
from pipeline.sources.history import Asked, Estimate, Period

ASKED = Asked(
    product="users",
    period=Period(Time("2030-01-01T00:00:00.000Z"), Time("2030-01-08T00:00:00.000Z")),
    tenants=("acme",),
    resources=("tags", "contacts"),
)


def estimate(account: str, calls: int | None) -> Estimate:
    """What a resource takes."""
    items = None if calls is None else 100 * calls
    return Estimate(tenant="acme", account=account, resource="tags", items=items, calls=calls)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--since", "1d"), "give --yes where nobody can answer"),
        (("--since", "1d", "--json"), "give --yes where nobody can answer"),
        (("--since", "soon", "--yes"), "--since: 'soon' is no time"),
        (("--since", "400d", "--yes"), "decode.seen_days: 45"),
        (("--since", "1d", "--resources", "mesages", "--yes"), "did you mean 'messages'"),
        (("--since", "1d", "--tenant", "acme", "--yes"), "--tenant: 'acme' is unknown"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_asked(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2 and what to do, though neither Kafka nor an API is there."""
    assert main(["backfill", "sakari", *words, "--bootstrap-servers", "127.0.0.1:1"]) == 2
    assert told in capsys.readouterr().err


def test_accounts_take_their_time_side_by_side() -> None:
    """Four at a time, each at its own pace; a long one alone takes as long as it takes."""
    even = [estimate(f"a{n}", 100) for n in range(8)]
    assert backfill._seconds(even, 2.5) == 8 * 100 / 4 / 2.5
    assert backfill._seconds([*even, estimate("long", 1_000)], 2.5) == 1_000 / 2.5
    assert backfill._seconds([estimate("a", 100), estimate("b", None)], 2.5) is None


@pytest.mark.parametrize(("seconds", "told"), [(9, "9 s"), (125, "2 min 5 s"), (7_260, "2 h 1 min")])
def test_a_time_is_told_in_words(seconds: int, told: str) -> None:
    """Two units at most."""
    assert backfill._span(seconds) == told


def test_a_plan_tells_calls_against_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    """How many, how fast at most, how many a day, how long."""
    backfill._show(ASKED, [estimate("a", 3_000)], Settings(), json=False)
    told = capsys.readouterr().out
    assert "About 3,000 calls, at most 2.5 a second and 50,000 a day for each account" in told
    assert "20 min 0 s" in told
    assert "2030-01-01T00:00:00.000Z to 2030-01-08T00:00:00.000Z" in told


def test_a_plan_for_programs_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody knows is null."""
    backfill._show(ASKED, [estimate("a", 3), estimate("b", None)], Settings(), json=True)
    told = orjson.loads(capsys.readouterr().out)
    assert (told["kind"], told["calls"], told["seconds"]) == ("plan", None, None)
    assert [each["calls"] for each in told["resources"]] == [3, None]
    assert told["asked"]["period"]["since"] == "2030-01-01T00:00:00.000Z"
