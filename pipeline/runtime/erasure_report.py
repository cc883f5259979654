"""
What an erasure did, as a signed document that holds no number.

The signature is Ed25519 over the report's JSON without ``signature``, keys sorted, no white space. Its key
follows from the identity secret, so there is no other secret to keep; whoever has the public key, which
`pipeline erase key` tells, can verify a report without the secret.
"""

import base64
import binascii
from typing import Any, Final, final

import msgspec
import orjson
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.instants import Time
from pipeline.runtime.erasure import Held

__all__ = ["Report", "is_genuine", "public_key", "signed"]

_PURPOSE: Final = "erasure reports"


@final
class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure: who asked for it, what was held before, and what is left until when."""

    id: str
    tenant: str
    keys: tuple[str, ...]  #: contact keys and native keys that are left out from now on
    by: str
    asked_at: Time
    looked_at: Time  #: when ``after`` was found
    complete: bool  #: whether no table and no state held anything then
    before: tuple[Held, ...]
    after: tuple[Held, ...]


def public_key(identity: Identity) -> str:
    """The key that reports are verified with, base64."""
    return base64.b64encode(bytes(_key(identity).verify_key)).decode()


def signed(report: Report, identity: Identity) -> bytes:
    """*report* as JSON with its ``signature``."""
    told = msgspec.to_builtins(report)
    signature = _key(identity).sign(_canonical(told)).signature
    return orjson.dumps(
        {**told, "signature": base64.b64encode(signature).decode()},
        option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE,
    )


def is_genuine(document: bytes, key: str) -> bool:
    """
    Whether *document* is a report that the owner of the public *key* signed, and nothing in it was changed.

    Raises:
        ConfigError: it is no report, or *key* is none.
    """
    try:
        verifier = VerifyKey(base64.b64decode(key, validate=True))
    except (CryptoError, ValueError, TypeError, binascii.Error) as error:
        raise ConfigError("--key: is no Ed25519 public key in base64") from error
    try:
        told: dict[str, Any] = orjson.loads(document)
        signature = base64.b64decode(told.pop("signature"), validate=True)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError("the report: is no JSON with a signature") from error
    try:
        verifier.verify(_canonical(told), signature)
    except (CryptoError, ValueError):
        return False
    return True


def _key(identity: Identity) -> SigningKey:
    return SigningKey(identity.derived(_PURPOSE))


def _canonical(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
