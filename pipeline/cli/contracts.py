"""`pipeline topics export|check|release`: the contract of the topics as files, and whether it is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pipeline.cli.exports import KINDS, Asked, write
from pipeline.cli.output import print_json
from pipeline.contracts.breaches import Breach
from pipeline.contracts.releases import FOLDER, Contract, breaches, current, releases, save, version_of
from pipeline.errors import ConfigError
from pipeline.settings import load as load_settings
from pipeline.topics import path

__all__ = ["Kinds", "check", "export", "release"]


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """
    What to export.

    Parameters
    ----------
    schemas
        The JSON Schema of each type, <ce_type>.json.
    asyncapi
        The public topics as one AsyncAPI 3.0 document.
    strimzi
        Topics, changelogs and users as Strimzi's KafkaTopic and KafkaUser.
    acls
        What each part and subscriber may do, as commands of kafka-acls and as JSON.
    odcs
        A data contract of each public topic, Open Data Contract Standard 3.1.
    """

    schemas: bool = False
    asyncapi: bool = False
    strimzi: bool = False
    acls: bool = False
    odcs: bool = False


_NONE = Kinds()


def export(
    folder: Path | None = None,
    *,
    kinds: Annotated[Kinds, Parameter(name="*", negative=())] = _NONE,
    profile: str = "",
    subscriber: tuple[str, ...] = (),
    cluster: str = "kafka",
    authentication: Literal["scram-sha-512", "tls"] = "scram-sha-512",
    settings: Path | None = None,
    json: bool = False,
) -> None:
    """
    Write what other tools read of the topics, as files.

    Parameters
    ----------
    folder
        Where to; made if it is not there. Default: what is exported.
    profile
        The sizes in topics.yaml, dev or production; default: as the settings say.
    subscriber
        TEAM=TOPIC,…: users and ACLs for a team that reads these topics too; may be given several times.
    cluster
        The name of Strimzi's Kafka resource.
    authentication
        How Strimzi's users authenticate.
    settings
        The YAML file of settings, for application_id, profile and Kafka's address.
    json
        Print one JSON object.
    """
    asked = [name for name in KINDS if getattr(kinds, name)]
    if len(asked) != 1:
        allowed = " | ".join(f"--{name}" for name in KINDS)
        raise ConfigError(f"say what to export, one thing at a time; allowed: {allowed}")
    found = load_settings(settings)
    given = Asked(
        settings=found,
        profile=profile or found.profile,
        cluster=cluster,
        authentication=authentication,
        subscribers=subscriber,
    )
    files, target = KINDS[asked[0]](given), folder or Path(asked[0])
    write(files, target)
    if json:
        print_json("exported", folder=str(target), what=asked[0], files=sorted(files))
    else:
        print(f"Wrote {len(files)} {'file' if len(files) == 1 else 'files'} to {target}.")


def check(*, json: bool = False) -> int:
    """
    Compare types and topics with every release of the contract.

    Each breach says topic or type, field, rule, what changed, and what would be allowed.
    Exit codes: 0 every release is kept, 1 at least one is broken.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    released = releases(FOLDER)
    now = current()
    found = breaches(now, released)
    if json:
        told = [_plain(breach) for breach in found]
        print_json("contract", kept=not found, releases=[each.version for each in released], breaches=told)
    elif found:
        print("\n".join(_told(breach) for breach in found))
    else:
        count = f"{len(now.schemas)} types and {len(now.topics)} topics"
        print(f"{count} keep what was released: {', '.join(each.version for each in released) or 'nothing'}.")
    return 1 if found else 0


def release(version: str, *, json: bool = False) -> int:
    """
    Keep the contract as it is now under VERSION, for all later ones to be checked against.

    It is written into the source, pipeline/contracts/VERSION, to be committed; afterwards it never changes.
    Exit codes: 0 written, 1 an older release is broken, 2 the version cannot be used.

    Parameters
    ----------
    version
        Three numbers, larger than the last: 1.1.0 where something was added, 1.0.1 where only words changed.
    json
        Print one JSON object.
    """
    released, now = releases(FOLDER), current()
    _check_version(version, released, now)
    _check_source()
    if breaches(now, released):
        return check(json=json)
    save(now, FOLDER / version)
    if json:
        print_json("released", version=version, folder=str(FOLDER / version))
    else:
        print(f"Wrote {FOLDER / version}; commit it.")
    return 0


def _check_version(version: str, released: tuple[Contract, ...], now: Contract) -> None:
    """Refuse a version that is not larger than the last, or would hold the same."""
    numbers = version_of(version)
    if not released:
        return
    last = released[-1]
    if numbers <= version_of(last.version):
        raise ConfigError(f"{version} is not after {last.version}, the last release")
    if (last.schemas, last.topics) == (now.schemas, now.topics):
        raise ConfigError(f"nothing changed since {last.version}; there is nothing to release")


def _check_source() -> None:
    """Refuse to write into an installed package: a release belongs into the source."""
    if path().is_relative_to(FOLDER.parent):
        raise ConfigError("this is no checkout of the source, where a release could be committed")


def _plain(breach: Breach) -> dict[str, object]:
    return {
        "subject": breach.subject,
        "path": breach.path,
        "rule": breach.rule,
        "told": breach.told,
        "allowed": breach.allowed,
        "releases": list(breach.releases),
    }


def _told(breach: Breach) -> str:
    place = f"{breach.subject}: {breach.path}".removesuffix(": ")
    promised = f" (promised by {', '.join(breach.releases)})" if breach.releases else ""
    return f"{place}: {breach.rule}: {breach.told}{promised}\n    allowed: {breach.allowed}"
