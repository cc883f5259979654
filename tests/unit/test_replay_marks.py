"""What follows from a replayed record is marked too; a shadow has names of its own, and tells the same."""

from pipeline.codec import Output, Record
from pipeline.headers import is_quiet
from pipeline.runtime import names
from pipeline.runtime.batch import Processor, stores_of
from pipeline.runtime.shadow import Shadow, ShadowCodec
from pipeline.runtime.state import Memory
from tests.unit.runtime_toys import COUNTS, STAGE, headers_of, outputs, processor, record, take, topics

MARKS = (("replay", b"5f0c2a91"), ("replay_effects", b"true"))


def marked(text: str) -> Record:
    """A record of ``in`` that a replay has copied."""
    made = record(text)
    return made._replace(headers=(*made.headers, *MARKS))


def test_what_a_step_emits_has_the_marks_of_its_cause() -> None:
    """On events and tables alike; what is caused by others has none."""
    one = processor()
    take(one, marked("a"))
    take(one, record("b", 1, key="other"))
    batch = one.close()
    assert batch is not None
    for topic in ("out", "table"):
        first, second = outputs(batch, topic)
        assert {name: headers_of(first).get(name) for name, _ in MARKS} == {
            "replay": "5f0c2a91",
            "replay_effects": "true",
        }
        assert "replay" not in headers_of(second)


def test_a_fan_out_has_the_marks_of_what_began_it() -> None:
    """Also after the batch in which it began."""
    one = processor()
    take(one, marked("fan out"))
    one.close()
    one.resume()
    batch = one.close()
    assert batch is not None
    assert {headers_of(each).get("replay") for each in outputs(batch, "out")} == {"5f0c2a91"}


def test_only_replayed_records_that_may_not_act_are_quiet() -> None:
    """The mark alone is quiet; let act, or without it, a record is like any other."""
    assert is_quiet({"replay": "x"})
    assert not is_quiet({"replay": "x", "replay_effects": "true"})
    assert not is_quiet({"replay_effects": "false"})


def test_a_shadow_has_names_of_its_own() -> None:
    """Group, transactional id, changelogs, redrive and outputs are its own; other inputs the live ones."""
    shadow = Shadow(3, (STAGE,), topics())
    (stage,) = shadow.stages
    assert names.group_id("app", stage.name) == "app.r3.toy"
    assert names.transactional_id("app", stage.name, 0) == "app.r3.toy.0"
    assert names.changelog("app", stage.name, COUNTS) == "app.r3.toy.counts.changelog"
    assert names.inputs_of(stage) == ("in", "r3.toy.redrive")
    assert stage.outputs == ("r3.out", "r3.table")
    assert shadow.outside(stage) == ("in",)
    assert (shadow.tables, len(stores_of(stage))) == ({"table": "r3.table"}, 2)


def test_a_shadow_tells_what_the_live_stage_tells() -> None:
    """Key, value, headers, ids included, are the live stage's; only the topics are others."""
    shadow = Shadow(3, (STAGE,), topics())
    codec = ShadowCodec(shadow, 1, "test")
    live, own = processor(), Processor(shadow.stages[0], 0, codec, Memory())
    for one in (live, own):
        for offset, text in enumerate(("a", "reject", "b")):
            take(one, record(text, offset))
    told, again = _closed(live), _closed(own)
    assert {each.topic for each in again} == {"r3.out", "r3.table", "r3.dead-letters"}
    for topic in ("out", "table"):
        mine = [each._replace(topic=topic) for each in again if each.topic == f"r3.{topic}"]
        assert mine == [each for each in told if each.topic == topic]


def _closed(one: Processor) -> list[Output]:
    batch = one.close()
    assert batch is not None
    return batch.outputs
