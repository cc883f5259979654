"""The oracle agrees with the pipeline, and with none of five pipelines that have a bug."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.events import EnrichedContact, MessageReceived, MessageStatusChanged, Partial
from pipeline.sandbox.oracle import Report
from pipeline.stage import Emit, Event, Outcome, Posted, Stage, Stores
from pipeline.stages import engagement
from tests.topology.oracle_run import GRACE_S, Run

Change = Callable[[Emit], Emit | None]


def emitting(name: str, change: Change) -> Callable[[Stage], Stage]:
    """Let stage *name* emit what *change* makes of each record; None: nothing."""

    def wrap(stage: Stage) -> Stage:
        if stage.name != name:
            return stage

        def changed(outcome: Outcome) -> Outcome:
            emit = tuple(emit for emit in map(change, outcome.emit) if emit is not None)
            return msgspec.structs.replace(outcome, emit=emit)

        def step(read: Stores, event: Event[Any]) -> Outcome:
            return changed(stage.step(read, event))

        def add_up(read: Stores, postings: Sequence[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
            assert stage.add_up is not None
            for cause, outcome in stage.add_up(read, postings):
                yield cause, changed(outcome)

        return msgspec.structs.replace(stage, step=step, add_up=add_up if stage.add_up else None)

    return wrap


def played(directory: Path, wrap: Callable[[Stage], Stage], webhooks: int = 1_600) -> Report:
    """What the oracle says of a run with wrapped stages."""
    return Run(directory / "ledger", webhooks=webhooks, wrap=wrap).play().report()


def measures(emit: Emit, **changes: Any) -> Emit:
    """*emit*, a share of a window, with changed measures."""
    share = emit.value
    changed = {name: change(getattr(share.measures, name)) for name, change in changes.items()}
    fresh = msgspec.structs.replace(share.measures, **changed)
    return msgspec.structs.replace(emit, value=msgspec.structs.replace(share, measures=fresh))


def reply_dropped(emit: Emit) -> Emit:
    """One reply is missing from the windows of all of a tenant."""
    share = emit.value
    if isinstance(share, Partial) and share.window_key.startswith("acme|all|1h") and share.measures.replies:
        return measures(emit, replies=lambda count: count - 1)
    return emit


def receipt_doubled(emit: Emit) -> Emit:
    """A delivered message counts twice in its job's windows."""
    share = emit.value
    if isinstance(share, Partial) and "|job:" in share.window_key and share.measures.delivered:
        return measures(emit, delivered=lambda count: count + 1)
    return emit


def tag_wrong(emit: Emit) -> Emit:
    """A tag is said to stand on the other system."""
    person = emit.value
    if not isinstance(person, EnrichedContact) or not person.tags or person.tags[0].folded != "spätkauf":
        return emit
    swapped = msgspec.structs.replace(person.tags[0], systems=("users",))
    return msgspec.structs.replace(
        emit, value=msgspec.structs.replace(person, tags=(swapped, *person.tags[1:]))
    )


def removal_missed(emit: Emit) -> Emit | None:
    """Contacts that are gone stay."""
    return None if emit.topic.endswith(".contacts") and emit.value is None else emit


def day_wrong(stage: Stage) -> Stage:
    """Days are UTC's, not the tenant's."""
    if stage.name != "engagement":
        return stage
    return engagement.stage(zones={}, grace_s=GRACE_S, reply_window_s=259_200, max_tags=50, seen_days=45)


BUGS = {
    "a dropped reply": (emitting("engagement", reply_dropped), "measure replies"),
    "a receipt counted twice": (emitting("engagement", receipt_doubled), "measure delivered"),
    "a wrong tag": (emitting("enrich", tag_wrong), "enriched contact's tag"),
    "a missed removal": (emitting("decode", removal_missed), "enriched contact"),
    "a wrong day": (day_wrong, "measure sent"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_each_planted_bug_is_caught(bug: str, tmp_path: Path) -> None:
    """A pipeline with one bug does not pass, and the check that is about it says so."""
    wrap, check = BUGS[bug]
    report = played(tmp_path, wrap)
    assert not report.passed
    assert report.failed_checks.get(check, 0) > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sound_pipeline_passes(seed: int, tmp_path: Path) -> None:
    """With duplicated, late, overtaken and lost webhooks nothing differs, and everything is seen."""
    report = Run(tmp_path / "ledger", seed=seed, webhooks=3_000).play().report()
    assert (report.failed_checks, report.uncovered) == ({}, [])
    assert report.passed


def test_facts_dropped_or_doubled_by_decode_are_caught(tmp_path: Path) -> None:
    """An inbound message that never becomes a fact, and a receipt told under a second id, are both named."""
    told: list[str] = []

    def drop_or_double(emit: Emit) -> Emit | None:
        if isinstance(emit.value, MessageReceived) and not told:
            told.append(emit.id)
            return None
        if isinstance(emit.value, MessageStatusChanged) and emit.value.status == "delivered":
            return msgspec.structs.replace(emit, id="f" * 64)
        return emit

    failed = played(tmp_path, emitting("decode", drop_or_double)).failed_checks
    assert failed["message fact missing"] == 1
    assert failed["activity twice"] == 1
