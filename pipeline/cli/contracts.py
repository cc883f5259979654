"""`pipeline topics export|check|release`: the contract of the topics as files, and whether it is kept."""

from pathlib import Path

from pipeline.cli.output import print_json
from pipeline.contracts.breaches import Breach
from pipeline.contracts.releases import FOLDER, Contract, breaches, current, releases, save, version_of
from pipeline.contracts.schemas import as_bytes, schemas
from pipeline.errors import ConfigError
from pipeline.topics import path

__all__ = ["check", "export", "release"]


def export(folder: Path | None = None, *, schemas: bool = False, json: bool = False) -> None:
    """
    Write what other tools read of the topics, as files.

    --schemas: the JSON Schema of each type, <ce_type>.json, the same bytes for the same types.

    Parameters
    ----------
    folder
        Where to; made if it is not there. Default: schemas.
    schemas
        Write the JSON Schema of every type.
    json
        Print one JSON object.
    """
    if not schemas:
        raise ConfigError("say what to export; allowed: --schemas")
    target = folder or Path("schemas")
    names = _write_schemas(target)
    if json:
        print_json("exported", folder=str(target), schemas=names)
    else:
        print(f"Wrote {len(names)} schemas to {target}.")


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


def _write_schemas(folder: Path) -> list[str]:
    found = schemas()
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in found.items():
        (folder / f"{name}.json").write_bytes(as_bytes(schema))
    return list(found)


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
