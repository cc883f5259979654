"""
Topics and users as Strimzi's operators take them: custom resources KafkaTopic and KafkaUser.

https://strimzi.io/docs/operators/latest/configuring, "KafkaTopicSpec" and "KafkaUserSpec", version v1.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import groupby
from typing import Any, Literal

import yaml

from pipeline.contracts.access import Grant

__all__ = ["Authentication", "Resource", "as_yaml", "topic", "users"]

#: A custom resource, as JSON.
Resource = dict[str, Any]
Authentication = Literal["scram-sha-512", "tls"]

_VERSION = "kafka.strimzi.io/v1"
#: What Kubernetes takes for the name of a resource (RFC 1123 subdomain).
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_NAME_MAX = 253


def topic(name: str, *, cluster: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> Resource:
    """The KafkaTopic of *name* on the Kafka resource *cluster*."""
    return _resource(
        "KafkaTopic",
        name,
        cluster,
        {"topicName": name, "partitions": partitions, "replicas": replicas, "config": dict(configs)},
    )


def users(grants: Iterable[Grant], *, cluster: str, authentication: Authentication) -> list[Resource]:
    """A KafkaUser for each user of *grants*, with an ACL for each grant."""
    by_user = groupby(sorted(set(grants)), key=lambda grant: grant.user)
    return [
        _resource(
            "KafkaUser",
            name,
            cluster,
            {
                "authentication": {"type": authentication},
                "authorization": {"type": "simple", "acls": [_acl(grant) for grant in theirs]},
            },
        )
        for name, theirs in by_user
    ]


def as_yaml(resources: Iterable[Resource]) -> str:
    """*resources* as one file for ``kubectl apply -f``."""
    return yaml.safe_dump_all(resources, sort_keys=False, explicit_start=True, width=110)


def _resource(kind: str, name: str, cluster: str, spec: Resource) -> Resource:
    metadata = {"name": _kubernetes(name), "labels": {"strimzi.io/cluster": cluster}}
    return {"apiVersion": _VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _kubernetes(name: str) -> str:
    """*name*, or where Kubernetes does not take it one that does not collide with that of another."""
    if len(name) <= _NAME_MAX and _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[: _NAME_MAX - 10]
    return f"{plain}-{sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _acl(grant: Grant) -> Resource:
    pattern = "prefix" if grant.prefixed else "literal"
    resource = {"type": grant.kind, "name": grant.name, "patternType": pattern}
    return {"resource": resource, "operations": list(grant.operations), "host": "*"}
