"""`pipeline erase`: take a person out of every table and all state, and leave them out from then on."""

import logging
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec

from pipeline import preflight
from pipeline.cli import cluster
from pipeline.cli.letters import agreed, operator
from pipeline.cli.output import print_json, print_table
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.codec import Codec
from pipeline.errors import ConfigError
from pipeline.identity import e164
from pipeline.instants import from_ms
from pipeline.runtime import erasure
from pipeline.runtime.connection import Connection
from pipeline.runtime.erasure import Held, Person, Scope
from pipeline.runtime.erasure_report import Report, is_genuine, public_key, signed
from pipeline.settings import Settings
from pipeline.settings import load as load_settings
from pipeline.topics import load

__all__ = ["app"]

app = cyclopts.App(
    name="erase",
    help="""
    Take a person out of every table and all state, and leave them out from then on.

    The plan says what is held where, then it asks. The stages must be running: they forget the person.
    Exit codes: 0 done, 1 something is held yet, or a report is not genuine, 2 it cannot be done as asked.
    """,
)

_CLUSTER: Final = Target()
_FLAG: Final = cyclopts.Parameter(negative=())
_WORDS: Final = {
    "removed": "removed by the stages",
    "polled": "removed at the poller's next scan",
    "expires": "expires",
    "kept": "kept: keys without a number",
}


@app.default
async def erase(
    *,
    tenant: str,
    mobile: Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)] = "",
    contact_id: str = "",
    target: ClusterTarget = _CLUSTER,
    yes: Annotated[bool, _FLAG] = False,
    plan: Annotated[bool, _FLAG] = False,
    report: Path | None = None,
    by: str = "",
    timeout_s: float = 60.0,
    json: Annotated[bool, _FLAG] = False,
) -> int:
    """
    Erase a person, after a look at what is held of them.

    Parameters
    ----------
    tenant
        Whose contact it is.
    mobile
        The person's number; - reads it from standard input, so that no shell keeps it.
    contact_id
        Or an id of theirs, of either system.
    yes
        Do not ask.
    plan
        Show what is held, and change nothing.
    report
        Where to write the signed report, a file or a folder; default: here, as erasure-<id>.json.
    by
        Who decides; default: whoever is logged in.
    timeout_s
        How long to wait for the stages, in seconds.
    json
        Print JSON lines.
    """
    settings = cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)
    number = _number(settings, tenant, mobile, contact_id)
    place = _place(report)
    at = await _scope(settings)
    person = await _person(settings, at, tenant, number, contact_id)
    before = await erasure.look(at, person)
    _show("plan", person, before, json=json)
    if plan:
        return 0
    if not agreed("Erase this person?", yes=yes, json=json):
        return 1
    made = await _carried_out(at, person, before, operator(by), timeout_s)
    file = place / f"erasure-{made.id}.json" if place.is_dir() else place
    file.write_bytes(signed(made, preflight.identity_of(settings)))
    _show("erased", person, made.after, json=json, report=str(file), complete=made.complete)
    return 0 if made.complete else 1


@app.command
def key(*, settings: Path | None = None) -> None:
    """
    Print the public key that reports are verified with.

    Parameters
    ----------
    settings
        The YAML file of settings; PIPELINE_… variables win over it.
    """
    print(public_key(preflight.identity_of(_with_secret(load_settings(settings)))))


@app.command
def verify(report: Path, *, key: str) -> int:
    """
    Say whether a report is genuine and unchanged.

    Parameters
    ----------
    report
        The report's file.
    key
        The public key, as `pipeline erase key` prints it.
    """
    try:
        document = report.read_bytes()
    except OSError as error:
        raise ConfigError(f"{report}: cannot be read: {error.strerror}") from error
    genuine = is_genuine(document, key)
    print("genuine" if genuine else "not genuine, or changed since")
    return 0 if genuine else 1


async def _scope(settings: Settings) -> Scope:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    topics = load()
    places = erasure.places_of(topics, settings.application_id, cluster.stages_of(settings))
    codec = Codec(topics, topics.profile(settings.profile).partitions, settings.application_id)
    at = await erasure.scope(Connection(settings.kafka, settings.runtime, "pipeline-erase"), codec, places)
    if at.partitions[erasure.TOPIC] != (wanted := codec.partitions(erasure.TOPIC)):
        raise ConfigError(
            f"profile: has {wanted} partitions, the cluster {at.partitions[erasure.TOPIC]};"
            " give the --profile that it was made with"
        )
    return at


def _number(settings: Settings, tenant: str, mobile: str, contact_id: str) -> str:
    """The number in E.164, empty where a contact id is given instead."""
    known = settings.tenants.get(tenant)
    if known is None:
        raise ConfigError(f"--tenant: {tenant!r} is none; known: {', '.join(settings.tenants) or 'none'}")
    if bool(mobile) == bool(contact_id):
        raise ConfigError("--mobile, --contact-id: give one of them")
    _with_secret(settings)
    if contact_id:
        return ""
    number = e164(sys.stdin.readline().strip() if mobile == "-" else mobile, known.region)
    if number is None:
        raise ConfigError("--mobile: is no valid number; write it with + and the code of its country")
    return number


def _place(report: Path | None) -> Path:
    """Where the report is to be, a folder or a file in one; told before anything is done."""
    place = report or Path()
    if not (place.is_dir() or place.parent.is_dir()):
        raise ConfigError(f"--report: there is no folder {place.parent}")
    return place


async def _person(settings: Settings, at: Scope, tenant: str, number: str, contact_id: str) -> Person:
    if not number:
        return await erasure.found(at, tenant, contact_id=contact_id)
    key = preflight.identity_of(settings).contact_key(tenant, number)
    person = await erasure.found(at, tenant, contact_key=key)
    return msgspec.structs.replace(person, numbers=tuple(sorted({*person.numbers, number})))


def _with_secret(settings: Settings) -> Settings:
    if settings.identity_secret is None:
        raise ConfigError("identity_secret: missing; contact keys and signatures follow from it")
    return settings


async def _carried_out(at: Scope, person: Person, before: list[Held], by: str, timeout_s: float) -> Report:
    id_ = secrets.token_hex(4)
    asked_at = await erasure.redact(at, person, id_, by)
    after = await erasure.gone(at, person, timeout_s)
    return Report(
        id=id_,
        tenant=person.tenant,
        keys=person.keys,
        by=by,
        asked_at=asked_at,
        looked_at=from_ms(time.time_ns() // 1_000_000),
        complete=not any(each.kind in ("removed", "polled") for each in after),
        before=tuple(before),
        after=tuple(after),
    )


def _show(
    what: str, person: Person, held: list[Held] | tuple[Held, ...], *, json: bool, **more: object
) -> None:
    if json:
        print_json(what, tenant=person.tenant, keys=person.keys, held=msgspec.to_builtins(held), **more)
        return
    rows = [
        (each.topic, f"{each.records:,}", _WORDS[each.kind] + (f" {each.until}" if each.until else ""))
        for each in held
    ]
    print_table("Held of this person", ("topic", "records", "what becomes of them"), rows)
    for name, value in more.items():
        print(f"{name}: {value}")
