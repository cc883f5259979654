"""
The command line: `main`, and one module for each command, imported only when it is used.

Exit codes of every command: 0 done, 1 failed, 2 what was asked or configured cannot be used (each
problem on a line of its own), 130 ended by Ctrl-C. A command may add meanings of its own.
"""

import inspect
import sys
from collections.abc import Coroutine, Iterator, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

import cyclopts

from pipeline.errors import ConfigError, PipelineError

__all__ = ["COMMANDS", "application", "main"]

DISTRIBUTION = "sakari-users-pipeline"

#: name -> where its function or app is, and what `pipeline --help` says of it.
COMMANDS = {
    "dev": ("pipeline.cli.dev:dev", "Everything on this machine: Kafka, both APIs' sandboxes, traffic."),
    "run": ("pipeline.cli.run:run", "The stream processors against a given Kafka and given APIs."),
    "topics": ("pipeline.cli.topics:app", "List, describe, plan, apply, check and export the topics."),
    "tail": ("pipeline.cli.tail:tail", "The records of a topic: filtered, masked, as text, JSON or CSV."),
    "replay": ("pipeline.cli.replay:app", "What topics kept, read again: by a group, or on a side topic."),
    "dlq": ("pipeline.cli.dlq:app", "Dead letters: looked at, mended, put back or discarded."),
    "backfill": ("pipeline.cli.backfill:app", "History from both APIs; what webhooks lost is made good."),
    "erase": ("pipeline.cli.erase:app", "A person, out of all tables and state, and left out from then on."),
    "broker": ("pipeline.cli.broker:broker", "A real Kafka on this machine, alone."),
    "sandbox": ("pipeline.cli.sandbox:app", "Both APIs as servers on this machine, and their oracle."),
    "doctor": ("pipeline.cli.doctor:doctor", "Check settings, Kafka, topics and APIs; say what to do."),
    "chaos": ("pipeline.cli.chaos:chaos", "Faults of every kind, and the oracle's word on what came of it."),
    "bench": ("pipeline.cli.bench:app", "Standard works through the runtime, measured."),
}


def application(tokens: Sequence[str] = ()) -> cyclopts.App:
    """The command line for *tokens*: only the command they name is imported."""
    app = cyclopts.App(
        name="pipeline",
        help="Sakari and the Users API, joined on Apache Kafka.",
        version=_version,
        help_format="plaintext",  # docstrings are shown as they are written, and Markdown costs 0.1 s
        suppress_keyboard_interrupt=False,
        default_parameter=cyclopts.Parameter(negative_iterable=()),
    )
    for name, (place, summary) in COMMANDS.items():
        if find_spec(place.partition(":")[0]) is not None:
            # A help text given here would stand for the command's own, which says more.
            app.command(place, name=name, **({} if name in tokens[:1] else {"help": summary}))
    app.register_install_completion_command()
    return app


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - `--help` does not pay for it

    return metadata.version(DISTRIBUTION)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command that *tokens* name (default: the process's arguments); return its exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    try:
        _check_name(words)
        return _run(words)
    except cyclopts.CycloptsError:
        return 2  # cyclopts has told what is wrong
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        return _failed(error, json="--json" in words)


def _check_name(words: Sequence[str]) -> None:
    """Refuse an unknown command before all of them are imported to look for it."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        close = get_close_matches(words[0], COMMANDS, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown command {words[0]!r}{guess}; allowed: {' | '.join(COMMANDS)}")


def _run(words: Sequence[str]) -> int:
    command, bound, *_ = application(words).parse_args(words, exit_on_error=False)
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        result = _looped(result)
    return result if isinstance(result, int) else 0


def _looped(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # noqa: PLC0415 - only commands that await pay for it

    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def _failed(error: Exception, *, json: bool) -> int:
    """Tell *error* on standard error, masked; return the exit code."""
    leaves = list(_leaves(error))
    refused = [leaf for leaf in leaves if isinstance(leaf, ConfigError)]
    problems = [each for leaf in refused for each in leaf.problems] or [_told(leaf) for leaf in leaves]
    _tell(problems, type((refused or leaves)[0]).__name__, json=json)
    return 2 if refused else 1


def _told(error: BaseException) -> str:
    """An error of our own says all there is to say; another needs its traceback."""
    if isinstance(error, PipelineError):
        return str(error)
    import traceback  # noqa: PLC0415

    return "".join(traceback.format_exception(error)).rstrip()


def _tell(problems: list[str], kind: str, *, json: bool) -> None:
    from pipeline.logs import mask, mask_problem  # noqa: PLC0415 - nothing to mask where nothing fails

    masked = [(mask_problem if kind == ConfigError.__name__ else mask)(problem) for problem in problems]
    if json:
        import orjson  # noqa: PLC0415

        told = orjson.dumps({"kind": "error", "error": kind, "problems": masked}).decode()
    else:
        told = "\n".join(f"pipeline: {problem}" for problem in masked)
    print(told, file=sys.stderr, flush=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
