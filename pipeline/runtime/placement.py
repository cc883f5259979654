"""
Who of a group's members runs which task, and who keeps a warm copy of its state: pure, the same for all.

A task is a partition number with all inputs that its member reads; it is never split. In this order:

1. *An input is not taken from a task again.* In a rolling upgrade that adds an input, the old version
   shares the numbers that the new one has not had yet, the new input of which waits for its turn with
   nothing committed. A number that has been read with the new input stays with members that read it:
   the old version would write the shared state without what it does not know. Only where nobody reads
   that input any more is it given up, as in a rollback.
2. *Balance*: equal members differ by one task at most.
3. *Fewest moves*: a number stays with the member that has it, whoever else joins or leaves.
4. *Warmth*: what has to move goes to the member whose copy of the state reaches furthest.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import ceil

import msgspec

__all__ = ["Member", "owners", "standbys"]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one member."""

    topics: frozenset[str]
    epoch: int = 0  #: of the assignment that *owned* is from; of two claims the later one holds
    owned: frozenset[int] = frozenset()
    copies: Mapping[int, int] = {}  #: number -> how far its copy of that state reaches
    keeps_standbys: bool = False


def owners(
    tasks: Mapping[int, frozenset[str]], members: Mapping[str, Member], read: Mapping[int, frozenset[str]]
) -> dict[int, str]:
    """
    Number -> member, for each number of *tasks* (-> its topics) that anybody reads.

    *read* is what each number was read with in the assignment before.
    """
    alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number in sorted(tasks):
        alike[_candidates(tasks[number], members, read.get(number, frozenset()))].append(number)
    claims = _claims(members)
    found: dict[int, str] = {}
    for candidates in sorted(alike, key=lambda each: (len(each), each)):
        if candidates:
            found |= _dealt(alike[candidates], candidates, members, claims, Counter(found.values()))
    return found


def standbys(
    tasks: Mapping[int, frozenset[str]], members: Mapping[str, Member], owned: Mapping[int, str]
) -> dict[int, str]:
    """Number -> the member that is to keep a copy; never the owner *owned* names, and none who reads less."""
    keepers = [name for name, member in sorted(members.items()) if member.keeps_standbys]
    able = {
        number: [
            name
            for name in _candidates(tasks[number], members, members[owner].topics)
            if name in keepers and name != owner
        ]
        for number, owner in owned.items()
    }
    room = ceil(len(owned) / max(1, len(keepers)))
    load: Counter[str] = Counter()
    found: dict[int, str] = {}
    for number in sorted(owned):  # who has a copy already goes on with it
        holders = [name for name in able[number] if number in members[name].copies and load[name] < room]
        if holders:
            found[number] = min(holders, key=lambda name: (-members[name].copies[number], load[name], name))
            load[found[number]] += 1
    pairs = Counter((owned[number], name) for number, name in found.items())
    for number in sorted(owned.keys() - found.keys()):  # one owner's tasks are spread over all others
        if able[number]:
            best = min(able[number], key=lambda name: (load[name], pairs[owned[number], name], name))
            found[number] = best
            load[best] += 1
            pairs[owned[number], best] += 1
    return found


def _candidates(
    topics: frozenset[str], members: Mapping[str, Member], read: frozenset[str]
) -> tuple[str, ...]:
    """Who may have the number with *topics*: who reads it at all, and most of what was *read* of it."""
    kept = {name: len(member.topics & topics & read) for name, member in members.items()}
    readers = [name for name in sorted(members) if members[name].topics & topics]
    most = max((kept[name] for name in readers), default=0)
    return tuple(name for name in readers if kept[name] == most)


def _claims(members: Mapping[str, Member]) -> dict[int, str]:
    """Number -> its owner until now; a claim of an earlier assignment loses."""
    claims: dict[int, str] = {}
    for name, member in sorted(members.items(), key=lambda each: (-each[1].epoch, each[0])):
        for number in member.owned:
            claims.setdefault(number, name)
    return claims


def _dealt(
    numbers: Sequence[int],
    candidates: Sequence[str],
    members: Mapping[str, Member],
    claims: Mapping[int, str],
    load: Counter[str],
) -> dict[int, str]:
    """Deal *numbers* to *candidates*, who have *load* tasks already."""
    had = {name: [number for number in numbers if claims.get(number) == name] for name in candidates}
    holders = {number: [name for name in candidates if number in members[name].copies] for number in numbers}
    lost = [number for number in numbers if claims.get(number) not in had]
    warm = Counter(name for number in lost for name in holders[number])
    room = _room(len(numbers), load, {name: (len(had[name]), warm[name]) for name in candidates})
    found: dict[int, str] = {}
    for name in candidates:
        others = [members[each] for each in candidates if each != name]
        staying = sorted(had[name], key=lambda number: (_best_copy(number, others), number))
        found |= dict.fromkeys(staying[: room[name]], name)
    room.subtract(found.values())
    for number in sorted(
        set(numbers) - found.keys(), key=lambda each: (not holders[each], len(holders[each]), each)
    ):
        free = [name for name in candidates if room[name]]
        best = min(free, key=lambda name: (-members[name].copies.get(number, -1), -room[name], name))
        found[number] = best
        room[best] -= 1
    return found


def _best_copy(number: int, members: Sequence[Member]) -> int:
    """How far the best copy of *number* reaches that one of *members* has."""
    return max((member.copies.get(number, 0) for member in members), default=0)


def _room(count: int, load: Counter[str], wishes: Mapping[str, tuple[int, int]]) -> Counter[str]:
    """Member -> how many of *count* tasks it gets: level with its *load*; *wishes* (had, warm) break ties."""
    room: Counter[str] = Counter()
    for _ in range(count):
        level = {
            name: (load[name] + room[name], had <= room[name], had + warm <= room[name], name)
            for name, (had, warm) in wishes.items()
        }
        room[min(level, key=lambda name: level[name])] += 1
    return room
