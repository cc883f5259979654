"""`pipeline tail`: the records of a topic as they are, from any place on, filtered and masked."""

import logging
import os
import select
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated, Final

import cyclopts

from pipeline.checked_yaml import did_you_mean
from pipeline.cli import cluster
from pipeline.cli.stopping import stopped_by_signals
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.codec import Record
from pipeline.errors import ConfigError
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.following import Follower, following
from pipeline.tail.columns import Viewer, columns
from pipeline.tail.condition import holding
from pipeline.tail.moments import moment_ms, places
from pipeline.tail.session import MAX_NEWEST, Session, Span
from pipeline.tail.status import Status
from pipeline.tail.writing import Write, as_csv, as_json, as_text
from pipeline.topics import load as load_topics

__all__ = ["tail"]

#: Records that are shown where nothing says where to begin and nothing more is waited for.
_USUAL: Final = 10


@dataclass(frozen=True, kw_only=True)
class Which:
    """
    Which records are shown: what comes, unless it is said where to begin.

    Parameters
    ----------
    since
        Begin so long ago (10m, 2h, 1d) or at a time (2030-01-01T12:00:00Z), by the records' timestamps.
    from_
        Begin at partition:offset, such as 0:1200; only the partitions that are named are read.
    newest
        Begin with the newest so many that --where keeps.
    until
        End before a time, or so long ago.
    follow
        Go on with what comes; --no-follow ends with what is there, by default the newest 10.
    where
        Only records for which this condition in CEL holds: value.tenant == "acme" && key.startsWith("acme:").
        It may use topic, partition, offset, timestamp, key, headers and value.
    """

    since: str = ""
    from_: Annotated[tuple[str, ...], cyclopts.Parameter(name="--from")] = ()
    newest: Annotated[int | None, cyclopts.Parameter(name=("--newest", "-n"))] = None
    until: str = ""
    follow: bool = True
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class How:
    """
    How they are shown: a line each for people, unless said otherwise.

    Parameters
    ----------
    columns
        Only these parts: key,value.tenant,value.contact.tags.*.name,headers.ce_type.
    unmask
        Show what tells of people: names, numbers, texts, and the bodies of raw topics.
    json
        Print one JSON object a line.
    csv
        Print CSV, its first row the names of the columns.
    """

    columns: tuple[str, ...] = ()
    unmask: bool = False
    json: bool = False
    csv: bool = False


_FLAT: Final = cyclopts.Parameter(name="*")
_CLUSTER: Final = Target()


async def tail(
    topic: str,
    which: Annotated[Which, _FLAT] = Which(),
    how: Annotated[How, _FLAT] = How(),
    target: ClusterTarget = _CLUSTER,
) -> None:
    """
    Show the records of a topic: what comes, or from a time, an offset or the newest on.

    Committed records only, each partition in its order; no consumer group knows of it. Standard error tells
    how many were read and shown, how fast, and how far that is behind. Ctrl-C ends it.
    Exit codes: 0 ended, 1 Kafka failed, 2 what was asked cannot be used.

    Parameters
    ----------
    topic
        Any topic of the cluster; of one that topics.yaml does not have, values are shown with --unmask only.
    """
    span = _span(which, time.time_ns() // 1_000_000)
    header, write = _writer(how)
    settings = cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    connection = Connection(settings.kafka, settings.runtime, "pipeline-tail")
    output = _Output(header, write, Viewer(load_topics(), unmask=how.unmask))
    async with AsyncExitStack() as stack:
        stack.enter_context(stopped_by_signals(output.stop))
        condition = await stack.enter_async_context(holding(which.where)) if which.where else None
        partitions = await _partitions(connection, topic)
        follower = await stack.enter_async_context(following(connection, topic, partitions))
        session = Session(follower, span, condition)
        status = Status(topic, session)
        await _show(session, follower, output, status)
        status.end(await follower.lag(), condition.undecided if condition else None)


async def _show(session: Session, follower: Follower, output: "_Output", status: Status) -> None:
    async with aclosing(session.records()) as found:
        async for records in found:
            if records:
                status.hide()
                output.write(records)
                status.show()
            if status.is_due:
                status.renew(await follower.lag())
            if output.is_over:
                return


class _Output:
    """Standard output, until whoever reads it has had enough or a signal came."""

    def __init__(self, header: str, write: Write, viewer: Viewer) -> None:
        self._text = header
        self._write = write
        self._viewer = viewer
        self._stopped = False
        self._poll = select.poll()
        self._poll.register(1, 0)

    @property
    def is_over(self) -> bool:
        """Whether nobody wants any more."""
        return self._stopped or bool(self._poll.poll(0))

    def stop(self) -> None:
        """Be over."""
        self._stopped = True

    def write(self, records: Sequence[Record]) -> None:
        """Print *records*, before the first of them the header."""
        text = self._text + "".join(self._write(self._viewer.shown(record)) for record in records)
        self._text = ""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self._stopped = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tells of it when it ends


def _span(which: Which, now_ms: int) -> Span:
    given = [n for n, has in (("--since", which.since), ("--from", which.from_), ("-n", which.newest)) if has]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them, where to begin")
    if which.newest is not None and not 0 < which.newest <= MAX_NEWEST:
        raise ConfigError(f"-n: {which.newest}; allowed: 1 to {MAX_NEWEST}")
    until_ms = moment_ms("--until", which.until, now_ms) if which.until else None
    ends = not which.follow or (until_ms is not None and until_ms <= now_ms)
    return Span(
        newest=which.newest or (_USUAL if ends and not given else None),
        since_ms=moment_ms("--since", which.since, now_ms) if which.since else None,
        offsets=places("--from", which.from_),
        until_ms=until_ms,
        follow=which.follow,
    )


def _writer(how: How) -> tuple[str, Write]:
    chosen = columns(how.columns)
    if how.json and how.csv:
        raise ConfigError("--json and --csv: give one of them")
    if how.csv:
        return as_csv(chosen)
    return "", as_json(chosen) if how.json else as_text(chosen)


async def _partitions(connection: Connection, topic: str) -> int:
    """How many *topic* has in the cluster."""
    async with Admin(connection.common) as admin:
        found = await admin.found([topic])
        if topic not in found:
            guess = did_you_mean(topic, dict.fromkeys(await admin.names()))
            raise ConfigError(f"{topic}: no such topic in {connection.bootstrap_servers}{guess}")
    return found[topic].partitions
