"""`pipeline dlq`: dead letters, looked at, mended, put back or discarded."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cyclopts
import msgspec
import orjson

from pipeline.cli import cluster, redrive
from pipeline.cli.letters import (
    MOST,
    Desk,
    Which,
    WhichLetters,
    agreed,
    counted,
    desk,
    operator,
    plan_fields,
    plan_lines,
    selection_of,
)
from pipeline.cli.output import print_json, print_table
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.errors import ConfigError
from pipeline.instants import from_ms
from pipeline.logs import mask
from pipeline.runtime import decisions
from pipeline.runtime.decisions import Listing, State, check_value, listed, planned
from pipeline.runtime.jobs import Jobs
from pipeline.runtime.letter_view import shown
from pipeline.runtime.letters import Edit, Letter, Selection
from pipeline.runtime.redrive import busy

__all__ = ["app"]

app = cyclopts.App(
    name="dlq",
    help="""
    Dead letters: records that a stage could not process.

    `list` and `show` look at them, `edit` gives one another value, `redrive` puts them back to the stage that
    refused them, `discard` closes them. What was redriven or discarded is open no more, and is on the topic
    audit: who, when, why, what.
    """,
)
for _command in (redrive.redrive, redrive.status, redrive.pause, redrive.resume, redrive.cancel):
    app.command(_command)

_ALL: Final = Which()
_CLUSTER: Final = Target()
_FLAG: Final = cyclopts.Parameter(negative=())


@app.command(name="list")
async def list_(
    which: WhichLetters = _ALL,
    target: ClusterTarget = _CLUSTER,
    *,
    state: State | Literal["all"] = "open",
    limit: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0))] = 50,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """
    Count the open letters by stage and reason, and show the newest.

    Exit codes: 0 shown, 1 Kafka failed, 2 what was asked cannot be used.

    Examples::

        pipeline dlq list
        pipeline dlq list --stage decode --since 2h
        pipeline dlq list --tenant acme --reason late --limit 0 --json

    Parameters
    ----------
    state
        Which became so: open, redriven, discarded, or all.
    limit
        So many of the newest; 0 shows counts alone.
    json
        Print one JSON object.
    """
    at = await desk(target)
    found = await listed(at.letters, selection_of(which), state, limit)
    if json:
        letters = [_summary(*each) for each in found.newest]
        groups = msgspec.to_builtins(found.groups)
        print_json("dead_letters", state=state, count=found.count, counts=groups, letters=letters)
        return
    _show_list(found, state)


@app.command
async def show(
    letter: str,
    target: ClusterTarget = _CLUSTER,
    *,
    unmask: Annotated[bool, _FLAG] = False,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """
    Show one letter whole: where and why it failed, each attempt, headers and value.

    Exit codes: 0 shown, 1 Kafka failed, 2 there is no such letter.

    Examples::

        pipeline dlq show 0-1200
        pipeline dlq show 0-1200 --unmask --json

    Parameters
    ----------
    letter
        Its id, as `pipeline dlq list` shows it.
    unmask
        Show what tells of people: names, numbers, texts.
    json
        Print one JSON object.
    """
    at = await desk(target)
    one = await _one(at, letter)
    entry, edited = (await at.letters.decisions()).get(one.id), (await at.letters.edits()).get(one.id)
    told = shown(at.codec.topics, one, entry, edited, unmask=unmask)
    if json:
        print_json("dead_letter", **told)
        return
    _show_letter(told)


@app.command
async def edit(
    letter: str,
    target: ClusterTarget = _CLUSTER,
    *,
    file: str = "",
    undo: Annotated[bool, _FLAG] = False,
    by: str = "",
    json: Annotated[bool, _FLAG] = False,
) -> int:
    """
    Give a letter another value, which a redrive puts back in place of the one that was refused.

    Without --file the value is opened in $EDITOR, unmasked. It is taken only if its topic's type, and for
    what came in raw the stage, can read it. The letter itself stays as it is.

    Exit codes: 0 taken, 1 Kafka failed, 2 not taken: what is wrong is told with its field.

    Examples::

        pipeline dlq edit 0-1200
        pipeline dlq edit 0-1200 --file mended.json
        jq .value.json letter.json | pipeline dlq edit 0-1200 --file -
        pipeline dlq edit 0-1200 --undo

    Parameters
    ----------
    letter
        Its id, as `pipeline dlq list` shows it.
    file
        A file with the value; - is standard input.
    undo
        Forget the value that it was given.
    by
        Who does it; default: who is logged in.
    json
        Print one JSON object.
    """
    at = await desk(target)
    one = await _one(at, letter)
    await _nobody_else(at)
    value = None
    if not undo:
        value = _from_file(file) if file else _from_editor(at, one, (await at.letters.edits()).get(one.id))
        if value is None:
            print("Nothing was changed.")
            return 0
        _check(at, one, value)
    await decisions.edit(at.connection, at.codec, one, value, operator(by))
    if json:
        print_json("edited", id=one.id, bytes=None if value is None else len(value))
    else:
        print(f"{one.id}: {'has its own value again' if undo else 'has another value; redrive puts it back'}")
    return 0


@app.command
async def discard(
    *letters: str,
    why: str,
    which: WhichLetters = _ALL,
    target: ClusterTarget = _CLUSTER,
    all_: Annotated[bool, cyclopts.Parameter(name="--all", negative=())] = False,
    limit: Annotated[int, MOST] = 10_000,
    by: str = "",
    yes: Annotated[bool, _FLAG] = False,
    json: Annotated[bool, _FLAG] = False,
) -> int:
    """
    Close letters that nobody will put back; who, when, why and which is recorded.

    Nothing is removed: they are on dead-letters until retention takes them.

    Exit codes: 0 discarded, 1 Kafka failed, 2 what was asked cannot be used or was not agreed to.

    Examples::

        pipeline dlq discard 0-1200 --why "sent by a test"
        pipeline dlq discard --reason late --until 30d --why "reports of that month are closed" --yes

    Parameters
    ----------
    letters
        Ids of letters, as `pipeline dlq list` shows them.
    why
        The reason, for whoever asks later. It is kept for 400 days: no names, no numbers.
    all_
        All open letters, where nothing else says which.
    limit
        So many at most.
    by
        Who does it; default: who is logged in.
    yes
        Do not ask.
    json
        Print JSON, one object a line.
    """
    if not why.strip():
        raise ConfigError("--why: is empty; say why they are discarded")
    selection = selection_of(which, letters)
    if selection == Selection() and not all_:
        raise ConfigError("say which letters: ids, --stage, --reason, … or --all")
    at = await desk(target)
    await _nobody_else(at)
    plan = await planned(at.letters, selection, limit)
    _show_plan(plan, json=json)
    if plan.taken and not agreed(f"Discard {plan.taken:,} letters?", yes=yes, json=json):
        return 2
    told = await decisions.discard(at.connection, at.codec, plan, operator(by), why) if plan.taken else ()
    count = sum(len(entry.what) for entry in told)
    if json:
        print_json("discarded", count=count)
    else:
        print(f"{count:,} discarded")
    return 0


async def _one(at: Desk, id_: str) -> Letter:
    selection_of(_ALL, (id_,))  # is it an id at all?
    return await at.letters.one(id_)


async def _nobody_else(at: Desk) -> None:
    await busy(Jobs(at.connection, at.codec))


# ---------------------------------------------------------------- values


def _from_file(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"--file: {file} cannot be read: {error.strerror}") from error


def _from_editor(at: Desk, letter: Letter, edited: Edit | None) -> bytes | None:
    """What the operator made of the value; None if nothing. What cannot be used can be edited again."""
    program = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not program:
        raise ConfigError("--file: give a file or -, or set EDITOR")
    before = _readable(edited.value if edited else letter.value or b"")
    with tempfile.TemporaryDirectory() as folder:  # for its owner's eyes only
        place = Path(folder) / f"{letter.id}.json"
        place.write_bytes(before)
        while True:
            _opened([*shlex.split(program), str(place)])
            value = place.read_bytes()
            if value == before:
                return None
            try:
                _check(at, letter, value)
            except ConfigError as error:
                if not sys.stdin.isatty():
                    raise
                print(mask(str(error)), file=sys.stderr)
                if not agreed("Edit again?", yes=False, json=False):
                    raise
            else:
                return value


def _opened(words: list[str]) -> None:
    try:
        subprocess.run(words, check=True)  # noqa: S603 - the operator's own
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"EDITOR: {words[0]} failed: {error}") from error


def _readable(value: bytes) -> bytes:
    """*value* indented if it is JSON."""
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONDecodeError:
        return value


def _check(at: Desk, letter: Letter, value: bytes) -> None:
    stages = {stage.name: stage for stage in cluster.stages_of(at.settings)}
    check_value(at.codec, letter, value, stages.get(letter.stage))


# ---------------------------------------------------------------- what is printed


def _summary(letter: Letter, state: State, is_edited: bool) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": state,
        "received_at": from_ms(letter.timestamp),
        "stage": letter.stage,
        "topic": letter.topic,
        "reason": letter.reason,
        "error": mask(letter.error),
        "tenant": letter.tenant,
        "key": letter.key_text,
        "attempts": letter.attempts,
        "edited": is_edited,
    }


def _show_list(found: Listing, state: str) -> None:
    print(f"{found.count:,} {'letters' if state == 'all' else state}")
    if found.groups:
        counted("By stage and reason", found.groups)
    if found.newest:
        columns = ("id", "received", "stage", "topic", "reason", "tenant", "attempts", "state", "key")
        rows = [_row(_summary(*each)) for each in found.newest]
        print_table(f"The newest {len(rows)}", columns, rows)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    state = f"{one['state']}, edited" if one["edited"] else one["state"]
    names = ("id", "received_at", "stage", "topic", "reason", "tenant", "attempts")
    return (*(str(one[name]) for name in names), state, one["key"])


def _show_plan(plan: decisions.Plan, *, json: bool) -> None:
    if json:
        print_json("plan", **plan_fields(plan))
        return
    print("\n".join(plan_lines(plan)))
    if plan.groups:
        counted("Taken", plan.groups)


def _show_letter(told: dict[str, Any]) -> None:
    for name, value in told.items():
        if name in ("headers", "history", "value", "edit"):
            continue
        print(f"{name:<14} {'-' if value in ('', None) else value}")
    for attempt in told["history"]:
        edited = ", another value" if attempt["edited"] else ""
        print(
            f"attempt {attempt['attempt']:<6} {attempt['letter']} {attempt['reason']}: {attempt['error']};"
            f" put back by {attempt['by']} at {attempt['at']} ({attempt['redrive']}{edited})"
        )
    for name, text in told["headers"].items():
        print(f"header         {name}: {text}")
    for title, value in (("value", told["value"]), ("edited value", told["edit"])):
        if value is not None:
            print(f"\n{title} ({value['bytes']:,} bytes{', masked: --unmask shows it' * value['masked']})")
            print(_text(value))


def _text(value: dict[str, Any]) -> str:
    if value["text"] is not None:
        return str(value["text"])
    return re.sub(r"\s+$", "", orjson.dumps(value["json"], option=orjson.OPT_INDENT_2).decode())
