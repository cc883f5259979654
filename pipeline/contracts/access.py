"""
Who may do what with Kafka, by least privilege: grants as values, as commands of kafka-acls, and as JSON.

Nothing is granted that nobody needs, and everything that is not granted is denied, as Kafka's
StandardAuthorizer does where ``allow.everyone.if.no.acl.found`` is not set.
"""

import shlex
from collections.abc import Iterable
from itertools import groupby
from typing import Any, Literal, final

import msgspec

__all__ = ["Grant", "Operation", "as_plain", "as_script", "of_subscriber", "principal"]

Operation = Literal["Describe", "Read", "Write"]
Kind = Literal["topic", "group", "transactionalId"]

_FLAGS = {"topic": "--topic", "group": "--group", "transactionalId": "--transactional-id"}
_HEAD = """\
#!/bin/sh
# Least privilege for each user. Run with what reaches the cluster as its administrator:
#   KAFKA_ACLS=/opt/kafka/bin/kafka-acls.sh sh acls.sh --bootstrap-server HOST:PORT --command-config FILE
set -eu
"""


@final
class Grant(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What *user* may do with one resource, or with all whose names begin with *name*."""

    user: str
    kind: Kind
    prefixed: bool = False
    operations: tuple[Operation, ...]
    name: str


def of_subscriber(team: str, topics: Iterable[str]) -> tuple[Grant, ...]:
    """What *team* needs to read *topics*, in the group of its name and in those below it, ``<team>.…``."""
    reading: tuple[Operation, ...] = ("Describe", "Read")
    return (
        *(Grant(user=team, kind="topic", operations=reading, name=name) for name in topics),
        Grant(user=team, kind="group", operations=reading, name=team),
        Grant(user=team, kind="group", operations=reading, name=f"{team}.", prefixed=True),
    )


def principal(user: str) -> str:
    """What Kafka calls *user*, who comes with a name and a password."""
    return f"User:{user}"


def as_script(grants: Iterable[Grant]) -> str:
    """A shell script that makes *grants* with kafka-acls; run again it changes nothing."""
    alike = groupby(sorted(set(grants)), key=_alike)
    return _HEAD + "".join(f"{_command(list(each))}\n" for _, each in alike)


def as_plain(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """*grants* as JSON: one object for each operation, in the words of Kafka's AclBinding."""
    return [
        {
            "principal": principal(grant.user),
            "host": "*",
            "resourceType": grant.kind,
            "name": grant.name,
            "patternType": "prefixed" if grant.prefixed else "literal",
            "operation": operation,
            "permission": "Allow",
        }
        for grant in sorted(set(grants))
        for operation in grant.operations
    ]


def _alike(grant: Grant) -> tuple[str, str, bool, tuple[str, ...]]:
    """Grants of which this is equal can be made by one command."""
    return grant.user, grant.kind, grant.prefixed, grant.operations


def _command(grants: list[Grant]) -> str:
    one = grants[0]
    words = ["--add", "--force", "--allow-principal", principal(one.user)]
    for operation in one.operations:
        words += ["--operation", operation]
    if one.prefixed:
        words += ["--resource-pattern-type", "prefixed"]
    for grant in grants:
        words += [_FLAGS[grant.kind], grant.name]
    return f'"${{KAFKA_ACLS:-kafka-acls.sh}}" "$@" {shlex.join(words)}'
