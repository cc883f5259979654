"""Who was erased is neither polled nor fetched as history."""

from pipeline.sources import left_out
from pipeline.sources.scan import ITEMS, Page
from tests.unit.test_poller import Poll, Script


class Erased:
    """The keys of the erased, as ``redactions`` would tell them."""

    def __init__(self) -> None:
        self.keys: frozenset[str] = frozenset()

    async def __call__(self) -> frozenset[str]:
        """All of them."""
        return self.keys


def polled(script: Script, erased: Erased) -> Poll:
    """A poller of *script* that leaves out *erased*."""
    script.resource = left_out.polled(script.resource, erased)
    return Poll(script)


def remembered(poll: Poll) -> list[str]:
    """The ids of the items in the poller's state."""
    return [place.rpartition("|")[2] for place, _ in poll.context.read.scan(ITEMS, "", "~")]


async def test_an_erased_item_is_forgotten_and_not_published_again() -> None:
    """The scan after the erasure deletes what was remembered, and publishes no change of it."""
    script, erased = Script(["1", "2"]), Erased()
    poll = polled(script, erased)
    await poll.scans(1)
    erased.keys = frozenset({"acme:u:-:1"})
    script.pages[0] = [("1", "changed"), "2"]
    await poll.scans(1)
    assert (len(poll.context.outputs), remembered(poll)) == (2, ["2"])


async def test_the_removal_of_an_erased_item_is_not_published() -> None:
    """An item that vanished from the API before the next scan is forgotten without its last body."""
    script, erased = Script(["1", "2"]), Erased()
    poll = polled(script, erased)
    await poll.scans(1)
    erased.keys = frozenset({"acme:u:-:1"})
    script.pages[0] = ["2"]
    await poll.scans(3)
    assert (poll.removed, remembered(poll)) == ([], ["2"])


async def test_who_is_let_in_again_is_published_as_new() -> None:
    """Each scan begins with who is erased by then."""
    script, erased = Script(["1"]), Erased()
    erased.keys = frozenset({"acme:u:-:1"})
    poll = polled(script, erased)
    await poll.scans(1)
    assert poll.context.outputs == []
    erased.keys = frozenset()
    await poll.scans(1)
    assert len(poll.context.outputs) == 1


async def test_a_backfill_does_not_even_see_the_erased() -> None:
    """Their items are not on the pages that it publishes; the walk goes on behind them."""
    script, erased = Script(["1", "2"], ["3"]), Erased()
    erased.keys = frozenset({"acme:u:-:2"})
    page: Page = await left_out.fetched(script.resource, erased).page("")
    assert ([item.id for item in page.items], page.next_cursor) == (["1"], "1")
