"""Whom the receiver believes: signatures, shared secrets, secrets of paths."""

import ast
import base64
import inspect
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.instants import from_ms
from pipeline.sources import signatures
from tests.unit.receiver_world import (
    KEYS,
    NOW_MS,
    OLD_SECRET,
    SAKARI_PATH,
    SHARED,
    SIGNING,
    World,
    message,
    pem,
    receiving,
    send_raw,
    sign,
    standard,
    users_event,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A receiver with its defaults."""
    async with receiving() as opened:
        yield opened


def _turned(text: bytes, bit: int) -> bytes:
    return (int.from_bytes(text, "little") ^ 1 << bit).to_bytes(len(text), "little")


class TestSignatures:
    """Whom the receiver believes."""

    @pytest.mark.parametrize("signature", [None, "", "N/A", "n/a", " N/A "])
    async def test_an_absent_signature_is_401(self, world: World, signature: str | None) -> None:
        """Absent, empty and the literal N/A are no signature."""
        headers = {} if signature is None else {"X-GHL-Signature": signature}
        answer = await world.post("/in/users", users_event(), headers)
        assert answer.status == 401
        assert world.published.outputs == []

    @pytest.mark.parametrize(
        "signature", ["AAAA", "not base64!", "ü", sign(b"other"), sign(b"x") + "=", "A" * 6000]
    )
    async def test_a_forged_or_malformed_signature_is_401(self, world: World, signature: str) -> None:
        """Only a signature of these very bytes counts, also where the tenant takes unsigned ones."""
        for location in ("location-1", "location-2"):
            assert (await world.users(users_event(locationId=location), signature)).status == 401
        assert world.published.outputs == []

    @given(st.binary(max_size=400), st.integers(0, 511), st.data())
    def test_a_signature_holds_for_its_bytes_alone(self, body: bytes, bit: int, data: st.DataObject) -> None:
        """As signed it is believed; with any bit of it, or of the body, turned, or a byte more, it is not."""
        keys, made = signatures.public_keys([pem(KEYS[1])]), KEYS[1].sign(body)
        turned = data.draw(st.integers(0, len(body) * 8))
        others = [(_turned(made, bit), body), (made + b"\0", body), (made, _turned(body + b"\0", turned))]
        assert signatures.ed25519(base64.b64encode(made).decode(), body, keys) is True
        for signature, signed in others:
            assert signatures.ed25519(base64.b64encode(signature).decode(), signed, keys) is False

    async def test_every_configured_key_counts(self, world: World) -> None:
        """Keys rotate: several at once are believed, another is not."""
        raw = orjson.dumps(users_event())
        statuses = [(await world.users(raw, sign(raw, key))).status for key in range(3)]
        assert statuses == [200, 200, 401]

    async def test_every_configured_path_secret_counts(self, world: World) -> None:
        """Path secrets rotate: several at once are taken."""
        assert (await world.post(f"/in/sakari/acme/{OLD_SECRET}", message())).status == 200
        assert (await world.post(SAKARI_PATH, message())).status == 200

    async def test_the_legacy_signature_is_never_looked_at(self, world: World) -> None:
        """``X-WH-Signature`` is no way in, neither alone nor beside a wrong new one."""
        raw = orjson.dumps(users_event())
        alone = await world.users(raw, None, **{"X-WH-Signature": sign(raw)})
        beside = await world.users(raw, "AAAA", **{"X-WH-Signature": sign(raw)})
        assert (alone.status, beside.status) == (401, 401)

    @pytest.mark.parametrize("signature", [None, "N/A"])
    async def test_a_tenant_that_takes_unsigned_ones_gets_them_marked(
        self, world: World, signature: str | None
    ) -> None:
        """Taken, but stored as unverified."""
        assert (await world.users(users_event(locationId="location-2"), signature)).status == 200
        assert (world.only.headers["tenant"], world.only.headers["verified"]) == ("open", "false")

    @pytest.mark.parametrize(
        "stamp", [from_ms(NOW_MS - 7_201_000), NOW_MS + 7_201_000, NOW_MS // 1000 - 7_201]
    )
    async def test_a_signed_webhook_of_another_time_is_401(self, world: World, stamp: Any) -> None:
        """A replay later than two hours is refused, whichever way its time is written."""
        assert (await world.users(users_event(timestamp=stamp))).status == 401

    @pytest.mark.parametrize(
        "stamp",
        [from_ms(NOW_MS - 7_199_000), NOW_MS, NOW_MS // 1000, str(NOW_MS), "soon", None, True, []],
    )
    async def test_a_time_within_two_hours_or_none_at_all_is_taken(self, world: World, stamp: Any) -> None:
        """The signature holds without a time; one that is none is decode's to tell."""
        assert (await world.users(users_event(timestamp=stamp))).status == 200

    async def test_a_standard_webhook_is_taken(self, world: World) -> None:
        """Signed as Standard Webhooks 1.0 says, among signatures of other kinds."""
        raw = b'{"id": "e1", "type": "scored"}'
        assert (await world.post("/in/source/signed/acme", raw, standard(raw))).status == 200
        assert (world.only.key, world.only.headers["product"]) == ("acme:x:-:e1", "signed")

    @pytest.mark.parametrize(
        "change",
        [
            {"webhook-id": "msg-2"},
            {"webhook-id": ""},
            {"webhook-timestamp": str(NOW_MS // 1000 + 1)},
            {"webhook-timestamp": "9" * 5000},
            {"webhook-timestamp": "١٢٣"},
            {"webhook-signature": "v1,AAAA"},
            {"webhook-signature": ""},
            {"webhook-signature": "ü"},
        ],
    )
    async def test_a_changed_standard_webhook_is_401(self, world: World, change: dict[str, str]) -> None:
        """Id, time and body are under the signature, and nothing in a header breaks the receiver."""
        raw = b'{"id": "e1"}'
        assert (await world.post("/in/source/signed/acme", raw, standard(raw) | change)).status == 401
        assert world.published.outputs == []

    async def test_an_old_standard_webhook_is_401(self, world: World) -> None:
        """A replay is refused by its own time."""
        raw = b'{"id": "e1"}'
        old = standard(raw, stamp=str(NOW_MS // 1000 - 7_201))
        assert (await world.post("/in/source/signed/acme", raw, old)).status == 401

    async def test_a_shared_secret_is_taken(self, world: World) -> None:
        """The header's value is the secret, and the id stands where the settings say."""
        answer = await world.post(
            "/in/source/survey/acme", {"event": {"id": 5}}, {"X-Webhook-Secret": SHARED}
        )
        assert (answer.status, world.only.key) == (200, "acme:x:-:5")

    @pytest.mark.parametrize("given", [None, "", "wrong", SHARED + "x"])
    async def test_a_wrong_shared_secret_is_401(self, world: World, given: str | None) -> None:
        """Any other value is refused."""
        headers = {} if given is None else {"X-Webhook-Secret": given}
        assert (await world.post("/in/source/survey/acme", {}, headers)).status == 401

    async def test_header_bytes_that_are_no_text_are_401(self, world: World) -> None:
        """Bytes that are no UTF-8 are compared like any other."""
        line = b"POST /in/source/survey/acme HTTP/1.1\r\n"
        rest = b"X-Webhook-Secret: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}"
        assert (await send_raw(world, rest, line)).startswith(b"HTTP/1.1 401")

    def test_secrets_are_only_compared_in_constant_time(self) -> None:
        """No function of the module compares what it was given with ``==`` or ``in``."""
        tree = ast.parse(inspect.getsource(signatures))
        named = {"path_secret", "shared_secret", "standard_webhook"}
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in named]
        operators = [op for f in functions for n in ast.walk(f) if isinstance(n, ast.Compare) for op in n.ops]
        assert len(functions) == len(named)
        assert not [op for op in operators if isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn)]
        assert all("compare_digest" in ast.unparse(function) for function in functions)

    @pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_QUJD"])
    def test_a_signing_secret_that_is_none_is_refused(self, secret: str) -> None:
        """An empty or short secret would sign for anybody."""
        with pytest.raises(ConfigError):
            signatures.signing_key(secret)
        assert len(signatures.signing_key(SIGNING)) == 32

    def test_every_unusable_public_key_is_named(self) -> None:
        """All problems at once, by number and without their text."""
        with pytest.raises(ConfigError) as caught:
            signatures.public_keys(["no file", pem(KEYS[0]), "-----BEGIN PUBLIC KEY-----\nzz"])
        assert [problem.split(":")[0] for problem in caught.value.problems] == [
            "receiver.users_api_keys.0",
            "receiver.users_api_keys.2",
        ]
