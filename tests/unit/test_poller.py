"""The poller's loop: what it commits, when it gives way, and what it removes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.codec import text_headers
from pipeline.effects import Unit
from pipeline.errors import BrokerError, Rejected, Throttled, Unavailable
from pipeline.events import PollState
from pipeline.instants import Time, from_ms, to_ms
from pipeline.partitioning import partition_of
from pipeline.sources import poller
from pipeline.sources.scan import ITEMS, LISTED, SCHEDULE, Item, Page, Resource, item_of
from pipeline.stage import Outcome, Put
from tests.unit.effect_context import START_MS, MemoryContext, Sleeper, values

INTERVAL_S = 60.0


class Script:
    """A resource that answers as a test wants, and remembers what it was asked."""

    def __init__(self, *pages: list[Any], name: str = "tags", removable: bool = True) -> None:
        self.pages: list[list[Any]] = list(pages)
        self.errors: dict[str, list[Exception]] = {}  #: cursor, or "id:<id>" -> failures to come
        self.present: set[str] = set()  #: ids that a look-up finds, though no page has them
        self.asked: list[str] = []
        self.looked_up: list[str] = []
        self.next_cursor: Callable[[str], str | None] = self._next
        self.resource = Resource(
            tenant="acme",
            account="loc",
            product="users",
            name=name,
            interval_s=INTERVAL_S,
            page=self.page,
            exists=self.exists,
            removable=removable,
        )

    async def page(self, cursor: str) -> Page:
        """The page at *cursor*, a number as text."""
        self.asked.append(cursor)
        self._fail(cursor)
        return Page(tuple(map(_item, self.pages[int(cursor or 0)])), self.next_cursor(cursor))

    async def exists(self, identifier: str) -> bool:
        """Whether a look-up finds *identifier*."""
        self.looked_up.append(identifier)
        self._fail(f"id:{identifier}")
        return identifier in self.present

    def _fail(self, at: str) -> None:
        if waiting := self.errors.get(at):
            raise waiting.pop(0)

    def _next(self, cursor: str) -> str | None:
        following = int(cursor or 0) + 1
        return str(following) if following < len(self.pages) else None


def _item(given: Any) -> Item:
    identifier, text = given if isinstance(given, tuple) else (given, "")
    return item_of(identifier, f"acme:u:-:{identifier}", {"_id": identifier, "text": text})


class Poll:
    """One task of the poller over its state; *max_pages* bounds a scan."""

    def __init__(self, *scripts: Script, max_pages: int = 100) -> None:
        self.scripts = scripts
        self.max_pages = max_pages
        self.context = MemoryContext(self._unit(asyncio.sleep).stage)

    def _unit(self, sleep: poller.Sleep) -> Unit:
        return poller.unit([script.resource for script in self.scripts], self.max_pages, sleep)

    async def until(self, done: Callable[[], bool]) -> list[float]:
        """Run a fresh process's poller until *done* holds; what it slept, in seconds."""
        sleeper = Sleeper(self.context, done, most=500)
        effect = self._unit(sleeper).effect
        assert effect is not None
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running: asyncio.Task[None] = tasks.create_task(_run(effect(self.context)), name="poller")
            while not (done() or running.done()):  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)
            running.cancel()
        return sleeper.slept

    async def scans(self, number: int) -> list[float]:
        """Run until *number* further scans are complete."""
        wanted = self.state().completed + number
        return await self.until(lambda: self.state().completed >= wanted)

    def state(self, script: int = 0) -> PollState:
        """What is committed of a resource."""
        stored = self.context.read.get(SCHEDULE, self.scripts[script].resource.key)
        return stored or PollState(interval_s=0, next_due_at=Time(""))

    @property
    def removed(self) -> list[str]:
        """The keys of what was published as removed."""
        outputs = self.context.outputs
        marked = [o for o in outputs if text_headers(o.headers).get("change") == "removed"]
        return [(output.key or b"").decode() for output in marked]


async def _run(effect: Awaitable[None]) -> None:
    await effect


class TestPages:
    """Reading."""

    async def test_a_scan_publishes_every_item_and_the_next_only_what_changed(self) -> None:
        """Two scans of equal pages give each item once."""
        script = Script(["1", "2"], ["3"])
        poll = Poll(script)
        await poll.scans(1)
        assert len(poll.context.outputs) == 3
        script.pages[1] = [("3", "changed"), "4"]
        await poll.scans(1)
        assert values(poll.context.outputs[3:]) == [b'{"_id":"3","text":"changed"}', b'{"_id":"4","text":""}']

    async def test_each_page_is_one_commit_of_outputs_and_cursor(self) -> None:
        """What is published and where the next page begins stand together."""
        poll = Poll(Script(["1", "2"], ["3"]))
        await poll.scans(1)
        told = [(len(commit.emit), _stored(commit).cursor) for commit in poll.context.commits]
        assert told == [(2, "1"), (1, LISTED), (0, "")]

    async def test_an_empty_page_in_the_middle_does_not_end_the_scan(self) -> None:
        """The end is where the resource says so."""
        poll = Poll(Script(["1"], [], ["2"]))
        await poll.scans(1)
        assert len(poll.context.outputs) == 2

    async def test_scans_begin_an_interval_apart(self) -> None:
        """From start to start."""
        poll = Poll(Script(["1"]))
        slept = await poll.scans(3)
        assert [seconds for seconds in slept if seconds] == [INTERVAL_S, INTERVAL_S]
        assert poll.state().scan == 3

    async def test_a_scan_longer_than_its_interval_is_followed_at_once(self) -> None:
        """Scans of one resource never overlap."""
        script = Script(["1"], ["2"])
        poll = Poll(script)

        def slow(cursor: str) -> str | None:
            poll.context.now_ms += 50_000
            return script._next(cursor)

        script.next_cursor = slow
        assert not [seconds for seconds in await poll.scans(2) if seconds]
        assert script.asked == ["", "1", "", "1"]

    async def test_records_are_stamped_with_the_start_of_their_scan(self) -> None:
        """All pages of a scan tell the same start, and the time of their own receipt."""
        script = Script(["1"], ["2"])
        poll = Poll(script)

        def slow(cursor: str) -> str | None:
            poll.context.now_ms += 7_000
            return script._next(cursor)

        script.next_cursor = slow
        await poll.scans(1)
        headers = [text_headers(output.headers) for output in poll.context.outputs]
        assert {told["scan_started_at"] for told in headers} == {from_ms(START_MS)}
        assert [told["received_at"] for told in headers] == [from_ms(START_MS + ms) for ms in (7_000, 14_000)]
        assert [output.timestamp for output in poll.context.outputs] == [START_MS + 7_000, START_MS + 14_000]

    async def test_an_item_that_cannot_be_a_record_is_passed_over_and_told(self) -> None:
        """One giant stops nothing, and does not count as missing."""
        poll = Poll(Script(["1", ("2", "small")]))
        await poll.scans(1)
        poll.scripts[0].pages[0][1] = ("2", "x" * 950_000)
        with capture_logs() as logs:
            await poll.scans(3)
        assert {log["event"] for log in logs} == {"item.too_large"}
        assert (len(poll.context.outputs), poll.removed) == (2, [])

    async def test_a_poller_polls_the_resources_of_its_partition_only(self) -> None:
        """Each resource is polled by one task of all."""
        scripts = [Script(["1"], name=f"tags{number}") for number in range(8)]
        poll = Poll(*scripts)
        poll.context.partitions = 2
        mine = [script for script in scripts if partition_of(script.resource.key.encode(), 2) == 0]
        await poll.until(lambda: all(script.asked for script in mine))
        assert 0 < len(mine) < 8
        assert {script.resource.name for script in scripts if script.asked} == {s.resource.name for s in mine}


class TestRestarts:
    """Crashes."""

    async def test_a_scan_goes_on_at_its_cursor_after_a_crash(self) -> None:
        """What was committed is not read again, and the scan keeps its number."""
        script = Script(["1"], ["2"], ["3"])
        poll = Poll(script)
        await poll.until(lambda: poll.state().cursor == "2")
        await poll.scans(1)
        assert script.asked == ["", "1", "2"]
        assert (poll.state().scan, poll.state().completed) == (1, 1)

    async def test_a_scan_that_was_not_seen_whole_judges_nothing(self) -> None:
        """Who was on pages that another process read cannot be missed; only the next scans tell."""
        script = Script(["1"], ["2"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"], []]
        for _ in range(3):
            await poll.until(lambda: poll.state().cursor == "1")
            await poll.until(lambda: poll.state().cursor == "")
        assert (poll.removed, script.looked_up) == ([], [])
        await poll.scans(2)
        assert poll.removed == ["acme:u:-:2"]

    async def test_a_commit_that_fails_ends_the_session_and_nothing_stands(self) -> None:
        """The task begins anew from what is committed; the page is read and published again."""
        script = Script(["1"], ["2"])
        poll = Poll(script)
        poll.context.failing = 1
        with pytest.raises(BaseExceptionGroup) as caught:
            await poll.scans(1)
        assert caught.group_contains(BrokerError)
        assert poll.context.outputs == []
        await poll.scans(1)
        assert len(poll.context.outputs) == 2

    async def test_a_wait_is_bounded_when_the_clock_is_set_back(self) -> None:
        """What is due by a clock that ran ahead is due in an interval at the latest."""
        poll = Poll(Script(["1"]))
        await poll.scans(1)
        poll.context.now_ms -= 86_400_000
        assert max(await poll.scans(1)) == INTERVAL_S

    async def test_a_shorter_interval_counts_from_the_restart_on(self) -> None:
        """The settings win over what is stored."""
        script = Script(["1"])
        poll = Poll(script)
        await poll.scans(1)
        script.resource = msgspec.structs.replace(script.resource, interval_s=5.0)
        assert max(await poll.scans(1)) == 5.0


class TestRemovals:
    """Tombstones."""

    async def test_two_complete_scans_must_miss_an_item_and_the_api_must_not_have_it(self) -> None:
        """Neither one scan nor two are enough while it is there by its id."""
        script = Script(["1", "2"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages, script.present = [["1"]], {"2"}
        await poll.scans(1)
        assert script.looked_up == []
        await poll.scans(1)
        assert (script.looked_up, poll.removed) == (["2"], [])
        script.present = set()
        await poll.scans(1)
        assert poll.removed == ["acme:u:-:2"]
        await poll.scans(3)
        assert poll.removed == ["acme:u:-:2"]

    async def test_a_removal_tells_the_start_of_the_scan_that_missed_it(self) -> None:
        """Decode orders it by that, not by when it was judged."""
        script = Script(["1", "2"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        await poll.scans(2)
        headers = text_headers(poll.context.outputs[-1].headers)
        assert headers["change"] == "removed"
        assert to_ms(Time(headers["scan_started_at"])) == START_MS + 2 * round(INTERVAL_S * 1000)

    async def test_an_item_that_reappears_is_counted_anew(self) -> None:
        """The two scans must be consecutive."""
        script = Script(["1", "2"])
        poll = Poll(script)
        await poll.scans(1)
        for page in (["1"], ["1", "2"], ["1"]):
            script.pages = [page]
            await poll.scans(1)
        assert (script.looked_up, poll.removed) == ([], [])

    async def test_a_removed_item_that_comes_back_is_published(self) -> None:
        """Nothing is remembered of it."""
        script = Script(["1", "2"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        await poll.scans(2)
        script.pages = [["1", "2"]]
        await poll.scans(1)
        assert poll.context.outputs[-1].key == b"acme:u:-:2"
        assert "change" not in text_headers(poll.context.outputs[-1].headers)

    async def test_a_suspicious_scan_removes_nothing_and_says_so(self) -> None:
        """More than a fifth and more than ten at once are not believed, however often."""
        script = Script([str(number) for number in range(50)])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [[str(number) for number in range(39)]]
        with capture_logs() as logs:
            await poll.scans(4)
        told = [log for log in logs if log["event"] == "scan.suspicious"]
        assert [(log["would_remove"], log["seen"]) for log in told] == [(11, 39)] * 3
        assert (poll.removed, script.looked_up) == ([], [])

    async def test_many_removals_are_spread_over_transactions(self) -> None:
        """A transaction stays small; all of them are removed, each once."""
        script = Script([str(number) for number in range(4_000)])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [[str(number) for number in range(3_300)]]
        await poll.scans(2)
        assert len(set(poll.removed)) == len(poll.removed) == 700
        assert max(len(commit.emit) for commit in poll.context.commits[-4:]) == 500

    async def test_what_is_never_removed_is_forgotten_without_a_word(self) -> None:
        """That a message is no longer listed takes back no fact, and leaves no state."""
        script = Script(["1", "2"], name="messages", removable=False)
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        await poll.scans(3)
        assert (poll.removed, script.looked_up) == ([], [])
        assert poll.context.read.get(ITEMS, f"{script.resource.key}|2") is None

    async def test_without_a_way_to_look_up_a_third_scan_must_miss_it(self) -> None:
        """Where the API has no read by id, one more scan stands for it."""
        script = Script(["1", "2"])
        script.resource = msgspec.structs.replace(script.resource, exists=None)
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        await poll.scans(2)
        assert poll.removed == []
        await poll.scans(1)
        assert poll.removed == ["acme:u:-:2"]

    async def test_a_look_up_that_fails_is_repeated_without_reading_the_scan_again(self) -> None:
        """The same place is where the judgement stood."""
        script = Script(["1", "2", "3"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        script.errors["id:3"] = [Unavailable("no answer"), Throttled("429", 30.0)]
        await poll.scans(2)
        assert len(script.asked) == 3
        assert (sorted(script.looked_up), sorted(poll.removed)) == (
            ["2", "3", "3", "3"],
            ["acme:u:-:2", "acme:u:-:3"],
        )

    async def test_an_item_that_the_api_will_not_tell_of_stays(self) -> None:
        """Only 404, 410 and ``deleted`` are removals; a refusal is none, and does not end the scan."""
        script = Script(["1", "2"])
        poll = Poll(script)
        await poll.scans(1)
        script.pages = [["1"]]
        script.errors["id:2"] = [Rejected(403, "no scope")] * 10
        await poll.scans(2)
        assert poll.removed == []


class TestFailures:
    """Giving way."""

    @pytest.mark.parametrize(("error", "least"), [(Unavailable("5xx"), 0.75), (Throttled("429", 40.0), 40.0)])
    async def test_a_failing_page_is_asked_for_again_after_a_while(
        self, error: Exception, least: float
    ) -> None:
        """At the same place, later: what the API wishes, or a back-off of its own."""
        script = Script(["1"], ["2"])
        script.errors["1"] = [error]
        poll = Poll(script)
        slept = await poll.scans(1)
        assert script.asked == ["", "1", "1"]
        assert least <= max(slept) <= max(1.25, least)
        assert (poll.state().failures, poll.state().error) == (0, None)

    async def test_back_off_grows_and_is_bounded(self) -> None:
        """Doubling from a second to five minutes, with a quarter of jitter."""
        script = Script(["1"])
        script.errors[""] = [Unavailable("down") for _ in range(12)]
        slept = [seconds for seconds in await Poll(script).scans(1) if seconds]
        wanted = [min(300.0, 2.0**number) for number in range(12)]
        assert len(slept) == 12
        assert all(0.74 * w <= s <= 1.26 * w for s, w in zip(slept, wanted, strict=True))

    async def test_a_refused_cursor_begins_the_scan_anew(self) -> None:
        """A cursor may have expired; the new scan has a number of its own."""
        script = Script(["1"], ["2"])
        script.errors["1"] = [Rejected(422, "cursor")]
        poll = Poll(script)
        await poll.scans(1)
        assert script.asked == ["", "1", "", "1"]
        assert poll.state().scan == 2

    async def test_a_failing_resource_does_not_hold_up_another(self) -> None:
        """Each resource has its own loop."""
        bad, good = Script(["1"], name="bad"), Script(["1"], name="good")
        bad.errors[""] = [Unavailable("down") for _ in range(1_000)]
        poll = Poll(bad, good)
        await poll.until(lambda: poll.state(1).completed >= 3)
        assert (poll.state(0).completed, poll.state(0).error) == (0, "down")

    async def test_an_answer_of_an_unforeseen_shape_fails_its_resource_only(self) -> None:
        """Whatever an answer makes of us, the others are polled on."""
        bad, good = Script(["1"], name="bad"), Script(["1"], name="good")
        bad.errors[""] = [KeyError("personal text") for _ in range(1_000)]
        poll = Poll(bad, good)
        await poll.until(lambda: poll.state(1).completed >= 2)
        assert poll.state(0).error == "bad: KeyError in an answer"

    async def test_a_scan_that_does_not_end_is_given_up(self) -> None:
        """More pages than the most there can be are endless: the scan begins anew, later, and says so."""
        script = Script(["1"])
        script.next_cursor = lambda cursor: str(int(cursor or 0) + 1)
        script.pages = [["1"]] * 100
        poll = Poll(script, max_pages=5)
        await poll.until(lambda: poll.state().failures == 1)
        assert poll.state().error == "status 0: tags: more than 5 pages"
        assert (len(script.asked), poll.state().cursor, poll.state().completed) == (6, "", 0)

    async def test_a_page_that_follows_itself_is_an_error(self) -> None:
        """An API that ignores the cursor is found out at once."""
        script = Script(["1"], ["2"])
        script.next_cursor = lambda _: "1"
        poll = Poll(script)
        await poll.until(lambda: poll.state().failures == 1)
        assert poll.state().error == "tags: the next page is this page again"


def _stored(commit: Outcome) -> PollState:
    stored = [w.value for w in commit.writes if isinstance(w, Put) and w.store is SCHEDULE]
    (state,) = stored
    assert isinstance(state, PollState)
    return state


def test_the_log_is_the_pollers_own() -> None:
    """Warnings are bound to tenant and resource, so that an operator finds whose they are."""
    made = poller._Poller(Script([]).resource, MemoryContext(poller.unit([], 1).stage), 1, asyncio.sleep)
    assert structlog.get_context(made._log) == {"tenant": "acme", "resource": "users.tags"}
