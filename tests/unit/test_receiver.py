"""The receiver: what is durable before it answers, what it takes, and what it keeps to itself."""

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator
from email.parser import Parser
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.identity import unreadable_key
from pipeline.instants import from_ms
from pipeline.settings import SourceSettings
from pipeline.sources import intake
from tests.unit.receiver_world import (
    NOW_MS,
    OLD_SECRET,
    SAKARI_PATH,
    SECRET,
    SHARED,
    SIGNING,
    Answer,
    World,
    message,
    receiving,
    send_raw,
    unavailable,
    until,
    users_event,
)

NAMES = st.sampled_from(["payload", "data", "id", "contact", "contactId", "eventType", "type"]) | st.text()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A receiver with its defaults."""
    async with receiving() as opened:
        yield opened


class TestDurability:
    """What a 2xx promises."""

    async def test_a_webhook_is_answered_only_when_it_is_durable(self, world: World) -> None:
        """No 2xx before the publisher has returned."""
        world.published.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(world.post(SAKARI_PATH, message()))
            await until(lambda: world.published.waiting)
            assert not asked.done()
            assert world.published.outputs == []
            world.published.gate.set()
        assert asked.result().status == 200
        assert len(world.published.outputs) == 1

    async def test_the_stored_value_is_the_body_byte_for_byte(self, world: World) -> None:
        """White space, order and escapes of the body survive."""
        raw = b' {"eventType" : "x", "accountId":"account-1","payload":{"id":"m\\u00fc"}}\n'
        assert (await world.post(SAKARI_PATH, raw)).status == 200
        assert world.only.value == raw

    async def test_kafka_away_is_429_with_a_time_to_wait(self, world: World) -> None:
        """What could not be stored is asked for again, by the one status that the Users API retries."""
        world.published.failure = unavailable()
        answer = await world.users(users_event())
        assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
        world.published.failure = None
        assert (await world.users(users_event())).status == 200

    async def test_a_bug_of_ours_is_429_too(self, world: World) -> None:
        """Never a 5xx: it would lose the event."""
        world.published.failure = ZeroDivisionError("secret text")
        answer = await world.users(users_event())
        assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
        assert "secret text" not in answer.text

    async def test_a_record_that_is_too_large_is_413(self, world: World) -> None:
        """What can never be stored is refused for good."""
        world.published.failure = RecordError("too-large")
        assert (await world.post(SAKARI_PATH, message())).status == 413

    async def test_more_than_the_most_in_flight_are_put_off(self) -> None:
        """Work is bounded: the one above the bound is answered at once, and the others still succeed."""
        async with receiving(max_in_flight=3) as world:
            world.published.gate.clear()
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(world.post(SAKARI_PATH, message())) for _ in range(3)]
                await until(lambda: world.published.waiting == 3)
                above = await world.post(SAKARI_PATH, message())
                world.published.gate.set()
            assert (above.status, above.headers["Retry-After"]) == (429, "5")
            assert [one.result().status for one in asked] == [200, 200, 200]
            assert (await world.post(SAKARI_PATH, message())).status == 200

    async def test_two_hundred_are_taken_at_a_time_by_default(self, world: World) -> None:
        """The bound of DESIGN section 6."""
        world.published.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(world.post(SAKARI_PATH, message())) for _ in range(200)]
            await until(lambda: world.published.waiting == 200)
            assert (await world.post(SAKARI_PATH, message())).status == 429
            world.published.gate.set()
        assert {one.result().status for one in asked} == {200}

    async def test_an_answer_is_whole_and_the_connection_stays_open(self, world: World) -> None:
        """Two webhooks sent one behind the other over one connection have two whole answers, and a date."""
        reader, writer = await asyncio.open_connection("127.0.0.1", world.receiver.port)
        one = f"POST {SAKARI_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
        writer.write(one.encode() * 2)
        for _ in range(2):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            told = Parser().parsestr(head.partition("\r\n")[2])
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert told["Content-Type"] == "application/json"
            assert abs(parsedate_to_datetime(told["Date"]).timestamp() - time.time()) < 60
            assert json.loads(await reader.readexactly(int(told["Content-Length"]))) == {"received": True}
        writer.close()

    @pytest.mark.parametrize(("version", "connection"), [("1.1", "close"), ("1.0", "close"), ("1.0", "")])
    async def test_who_wants_the_connection_closed_gets_it_closed(
        self, world: World, version: str, connection: str
    ) -> None:
        """An answer to the last request of a connection ends with it (RFC 9112 section 9.6)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", world.receiver.port)
        told = f"Host: x\r\nContent-Length: 2\r\nConnection: {connection}\r\n\r\n{{}}"
        writer.write(f"POST {SAKARI_PATH} HTTP/{version}\r\n{told}".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(f"HTTP/{version} 200 OK\r\n".encode())
        assert answer.endswith(b'\r\n\r\n{"received":true}')
        writer.close()

    async def test_stopping_answers_what_is_in_flight(self) -> None:
        """An orderly stop loses no request that was taken."""
        async with receiving() as world:
            world.published.gate.clear()
            async with asyncio.TaskGroup() as tasks:
                asked = tasks.create_task(world.post(SAKARI_PATH, message()))
                await until(lambda: world.published.waiting)
                world.receiver.stop()
                assert not world.receiver.ready
                world.published.gate.set()
            assert asked.result().status == 200


class TestRecords:
    """What a stored record carries."""

    async def test_a_record_carries_every_header(self, world: World) -> None:
        """CloudEvents 1.0 in binary mode, and what decode needs."""
        await world.post(SAKARI_PATH, message(), {"traceparent": TRACE})
        headers = world.only.headers
        assert re.fullmatch("[0-9a-f]{32}", headers.pop("ce_id"))
        assert headers == {
            "ce_specversion": "1.0",
            "ce_source": "/webhook/sakari/acme",
            "ce_type": "sources.received.v1",
            "ce_time": from_ms(NOW_MS),
            "ce_subject": "acme:s:c1",
            "content-type": "application/json",
            "traceparent": TRACE,
            "source": "webhook",
            "product": "sakari",
            "resource": "webhook",
            "tenant": "acme",
            "account": "account-1",
            "verified": "true",
            "received_at": from_ms(NOW_MS),
        }
        assert world.only.timestamp == NOW_MS

    @pytest.mark.parametrize(
        "given", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACE.upper(), TRACE + "\t-x"]
    )
    async def test_a_trace_that_is_none_is_replaced(self, world: World, given: str) -> None:
        """Every record has a valid traceparent (W3C Trace Context), whatever came."""
        await world.post(SAKARI_PATH, message(), {"traceparent": given})
        made = world.only.headers["traceparent"]
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", made)
        assert made != given

    @pytest.mark.parametrize(
        ("body", "key"),
        [
            (message(), "acme:s:c1"),
            (message(payload={"id": "m1"}), "acme:s:-:m1"),
            (message(payload={"id": 7}), "acme:s:-:7"),
            (message(eventType="contact-updated", payload={"id": "c9"}), "acme:s:c9"),
            (message(eventType="list-opt-out", payload={"id": "c9"}), "acme:s:c9"),
            (message(eventType="contact-opt-out", payload={"id": "o", "contact": {"id": "c9"}}), "acme:s:c9"),
            ({"accountId": "account-1", "type": "messageStatus", "data": {"id": "m1"}}, "acme:s:-:m1"),
        ],
    )
    async def test_a_sakari_key_is_that_of_the_contact_else_of_the_resource(
        self, world: World, body: dict[str, Any], key: str
    ) -> None:
        """One contact's webhooks meet in one partition, in both shapes of them."""
        assert (await world.post(SAKARI_PATH, body)).status == 200
        assert world.only.key == key

    @pytest.mark.parametrize(
        ("fields", "key"),
        [
            ({}, "acme:u:u1"),
            ({"type": "ContactUpdate", "contactId": None, "id": "u2"}, "acme:u:u2"),
            ({"type": "AppointmentCreate", "contactId": None, "id": "a1"}, "acme:u:-:a1"),
            ({"type": "Install", "contactId": None}, "acme:u:-:w1"),
            ({"contactId": None, "data": {"contactId": "u3"}}, "acme:u:u3"),
        ],
    )
    async def test_a_users_key_is_that_of_the_contact_else_of_the_resource(
        self, world: World, fields: dict[str, Any], key: str
    ) -> None:
        """Flat bodies and those under ``data`` give the same key."""
        assert (await world.users(users_event(**fields))).status == 200
        assert world.only.key == key


class TestBadInput:
    """Nothing that is verified is lost, nothing that is not gets in."""

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"not json",
            b"[1, 2]",
            b"null",
            b'{"accountId": "account-1", "payload": NaN}',
            b'{"accountId": "\xff"}',
            b'{"accountId": "\\ud800"}',
            b'{"accountId":"account-1","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"accountId": "account-1"}',
            b'{"accountId": "account-1", "payload": "text"}',
            b'{"accountId": "account-1", "payload": {"id": [1], "contact": 7}}',
            b'{"accountId": ["account-1"], "eventType": 3, "payload": {"id": {}, "contact": []}}',
        ],
    )
    async def test_what_sakari_sends_but_nobody_can_read_is_stored_as_it_came(
        self, world: World, raw: bytes
    ) -> None:
        """A verified body is answered 200 and kept under the hash of its bytes, for decode to tell of."""
        assert (await world.post(SAKARI_PATH, raw)).status == 200
        assert (world.only.value, world.only.key) == (raw, unreadable_key("acme", raw))

    @pytest.mark.parametrize("raw", [b"not json", b"[]", b"{}", b"[" * 50_000 + b"]" * 50_000])
    async def test_a_signed_body_that_nobody_can_read_is_stored_without_a_tenant(
        self, world: World, raw: bytes
    ) -> None:
        """Verified but unreadable: 200, under tenant ``-``."""
        assert (await world.users(raw)).status == 200
        assert (world.only.headers["tenant"], world.only.headers["verified"]) == ("-", "true")
        assert (world.only.value, world.only.key) == (raw, unreadable_key("-", raw))

    async def test_a_signed_webhook_of_an_unknown_location_is_stored_without_a_tenant(
        self, world: World
    ) -> None:
        """Whose it is stands nowhere: decode dead-letters it, the sender is not asked to repeat it."""
        assert (await world.users(users_event(locationId="nowhere"))).status == 200
        assert (world.only.headers["tenant"], world.only.headers["account"]) == ("-", "nowhere")
        assert world.only.key == "-:u:u1"

    @pytest.mark.parametrize("body", [message(eventType="brand-new"), message(payload={"id": "m1"})])
    async def test_unknown_types_and_missing_contacts_are_stored(
        self, world: World, body: dict[str, Any]
    ) -> None:
        """What an event means is decode's to say."""
        assert (await world.post(SAKARI_PATH, body)).status == 200
        assert world.only.headers["tenant"] == "acme"

    @pytest.mark.parametrize("account", ["account-2", "account-9", 7])
    async def test_a_foreign_account_is_404(self, world: World, account: Any) -> None:
        """A tenant's path takes the tenant's accounts only."""
        assert (await world.post(SAKARI_PATH, message(accountId=account))).status == 404
        assert world.published.outputs == []

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/in/sakari/acme/",
            f"/in/sakari/acme/{SECRET[:-1]}0",
            f"/in/sakari/nobody/{SECRET}",
            f"/in/sakari/acme/{SECRET}/more",
            "/in/sakari/acme/%FF%00",
            "/in/source/unknown/acme",
            "/in/source/survey/nobody",
        ],
    )
    async def test_a_wrong_path_is_404(self, world: World, path: str) -> None:
        """Neither tenants nor secrets nor sources can be told apart by the answer."""
        assert (await world.post(path, message())).status == 404
        assert world.published.outputs == []

    async def test_only_post_is_taken(self, world: World) -> None:
        """Another method is 405, and nothing is stored."""
        answer = await send_raw(world, b"\r\n", f"GET {SAKARI_PATH} HTTP/1.1\r\n".encode())
        assert (answer[:12], world.published.outputs) == (b"HTTP/1.1 405", [])

    async def test_who_waits_to_be_told_to_send_the_body_is_told(self, world: World) -> None:
        """``Expect: 100-continue`` is answered before the body comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", world.receiver.port)
        head = f"POST {SAKARI_PATH} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        writer.write(head.encode())
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b" OK\r\n")).endswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()

    async def test_a_body_of_the_most_bytes_is_taken_and_one_byte_more_is_413(self, world: World) -> None:
        """The limit is exact, with and without a length told before."""

        async def chunked(size: int) -> AsyncIterator[bytes]:
            for start in range(0, size, 65_536):
                yield b" " * min(65_536, size - start)

        most = 262_144
        told = [(await world.post(SAKARI_PATH, b" " * size)).status for size in (most, most + 1)]
        untold = [(await world.post(SAKARI_PATH, chunked(size))).status for size in (most, most + 1)]
        assert (told, untold) == ([200, 413], [200, 413])

    async def test_two_mebibytes_are_413(self, world: World) -> None:
        """Much too large is refused by its length before it is read."""
        assert (await world.post(SAKARI_PATH, io.BytesIO(b"x" * 2 * 1024 * 1024))).status == 413
        assert world.published.outputs == []

    async def test_a_stalled_body_is_put_off(self) -> None:
        """A sender that stops in the middle holds its place for a bounded time."""
        async with receiving(body_timeout_s=0.05) as world:
            answer = await send_raw(world, b"Content-Length: 10\r\n\r\nabc")
            assert answer.startswith(b"HTTP/1.1 429")
            assert world.receiver._in_flight == 0

    @pytest.mark.parametrize(
        "rest",
        [
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n",
            b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        ],
    )
    async def test_a_broken_body_is_the_senders_fault(self, world: World, rest: bytes) -> None:
        """A body that cannot be put together is 400, never 5xx, and not stored."""
        assert (await send_raw(world, rest))[8:12] == b" 400"
        assert world.published.outputs == []

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        )
    )
    def test_any_json_has_a_key_of_its_tenant(self, body: Any) -> None:
        """Whatever a body holds, its key can be computed, and begins with its tenant."""
        raw = json.dumps(body).encode(errors="surrogatepass")
        found = intake.parsed(raw)
        for key in (intake.sakari_key("acme", raw, found), intake.users_key("acme", raw, found)):
            assert key.encode().startswith(b"acme:")

    @given(st.dictionaries(NAMES, ANY_JSON, min_size=1))
    def test_a_body_read_in_part_has_the_same_key(self, body: dict[str, Any]) -> None:
        """Only what keys need is read, and of any JSON the same as if all of it were."""
        raw = json.dumps(body).encode()
        part, whole = intake.addressed(raw), intake.parsed(raw)
        for key in (intake.sakari_key, intake.users_key):
            assert key("acme", raw, part) == key("acme", raw, whole)


class TestSecrecy:
    """What is never told."""

    async def test_neither_bodies_nor_secrets_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whatever happens to a webhook, no log has its body, its path's secret or a header's."""
        caplog.set_level(0)
        stream = io.StringIO()
        structlog.configure(
            logger_factory=structlog.PrintLoggerFactory(stream), cache_logger_on_first_use=False
        )
        try:
            async with receiving() as world:
                await _every_outcome(world)
        finally:
            structlog.reset_defaults()
        told = stream.getvalue()
        told += "".join(f"{r.getMessage()}{r.exc_text}{r.exc_info}" for r in caplog.records)
        assert "webhook.deferred" in told
        assert "webhook.failed" in told
        for secret in (SECRET, OLD_SECRET, SHARED, SIGNING, "body-text", "/in/sakari"):
            assert secret not in told

    async def test_answers_tell_no_secret(self, world: World) -> None:
        """An error's text holds nothing that was sent."""
        answers = [
            await world.post(SAKARI_PATH, message(accountId="body-text")),
            await world.users(users_event(text="body-text"), "AAAA"),
            await world.post("/in/source/survey/acme", {}, {"X-Webhook-Secret": "body-text"}),
        ]
        assert [answer.status for answer in answers] == [404, 401, 401]
        assert not [answer for answer in answers if "body-text" in answer.text or SECRET in answer.text]

    async def test_every_answer_is_counted(self, world: World) -> None:
        """The metric has each product and status, refusals included."""
        await world.post(SAKARI_PATH, message())
        await world.users(users_event(), None)
        await world.post("/in/source/survey/acme", {}, {"X-Webhook-Secret": SHARED})
        assert world.answered == {("sakari", 200): 1, ("users", 401): 1, ("source", 200): 1}


async def _every_outcome(world: World) -> list[Answer | bytes]:
    """Each way that a webhook can go, and requests that are none."""
    body = message(payload={"id": "m1", "message": "body-text"})
    told: list[Answer | bytes] = [await world.post(SAKARI_PATH, body)]
    for failure in (unavailable(), RecordError("too-large"), KeyError("body-text")):
        world.published.failure = failure
        told.append(await world.post(SAKARI_PATH, body))
    told.append(await world.post(SAKARI_PATH, b"body-text" * 100_000))
    told.append(await send_raw(world, b"Transfer-Encoding: chunked\r\n\r\nbody-text\r\n"))
    told.append(await send_raw(world, b"Bad\x00Header: body-text\r\n\r\n"))
    told.append(await send_raw(world, b"\r\n", f"P\x01ST {SAKARI_PATH} HTTP/1.1\r\n".encode()))
    told.append(await send_raw(world, b"\r\n", f"POST {SAKARI_PATH}?{'x' * 9000} HTTP/1.1\r\n".encode()))
    return told


def test_a_source_without_an_id_is_keyed_by_its_content() -> None:
    """The same event has the same key; ids of other types count as none."""
    source = SourceSettings(auth="shared-secret", secret={"value": "x"}, id_path="event.id")
    keys = {intake.source_key("acme", source, b"raw", body) for body in (None, {}, {"event": {"id": True}})}
    assert keys == {unreadable_key("acme", b"raw")}


async def test_a_port_that_is_taken_is_named() -> None:
    """Not listening is a problem of the settings, told before anything else starts."""
    async with receiving() as world:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with receiving(port=world.receiver.port):
                pass
    assert "receiver.port: cannot listen on 127.0.0.1" in repr(caught.value)
