"""Processes of one world, of two versions with different inputs, that join, leave, crash and freeze."""

import random
import signal
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient

from pipeline.codec import Record, text_headers
from pipeline.runtime import names
from tests.broker.runtime_process import START_S, Child, started
from tests.broker.runtime_world import World, until_it


class Fleet:
    """Processes of a world in two versions, the new one with an input more, struck by what *seed* says."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._stack = AsyncExitStack()
        self._running: list[Child] = []
        self._count = 0

    async def __aenter__(self) -> Self:
        """Nobody has joined yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill whoever still runs."""
        await self._stack.aclose()

    async def join(self, *, new: bool) -> None:
        """Start a process, and return when it has joined."""
        self._count += 1
        world = self._world
        inputs = (world.input, world.side) if new else (world.input,)
        child = await self._stack.enter_async_context(
            started(world, world.folder / f"{self._count}", inputs=inputs)
        )
        await child.assigned()
        self._running.append(child)

    async def strike(self) -> None:
        """Let one join, leave, crash or freeze; two to four run afterwards."""
        kinds = ["leave", "crash", "freeze"] if len(self._running) > 2 else []
        kinds += ["join"] if len(self._running) < 4 else []
        kind = self._random.choice(kinds)
        if kind == "join":
            await self.join(new=self._random.random() < 0.5)
            return
        one = self._running.pop(self._random.randrange(len(self._running)))
        before = [(each, len(each.assignments)) for each in self._running]
        one.signal({"leave": signal.SIGTERM, "crash": signal.SIGKILL, "freeze": signal.SIGSTOP}[kind])
        if kind == "freeze":
            for each, assignments in before:
                await each.assigned(beyond=assignments)
            one.signal(signal.SIGCONT)
            self._running.append(one)

    async def progress(self, records: int) -> None:
        """Return when the fleet has committed so many input records more."""
        before = await self._committed()

        async def made() -> bool:
            return await self._committed() >= before + records

        await until_it(made, "progress", START_S)

    async def end_new(self) -> None:
        """Stop all in order but one of the new version."""
        await self.join(new=True)
        for one in self._running[:-1]:
            await one.stop()

    async def _committed(self) -> int:
        group, inputs = (
            names.group_id(self._world.id, self._world.name),
            {self._world.input, self._world.side},
        )
        admin = AIOKafkaAdminClient(bootstrap_servers=self._world.kafka)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return sum(each.offset for place, each in offsets.items() if place.topic in inputs)


def counted(records: list[Record]) -> dict[str, list[int]]:
    """Key -> the counts that its outputs tell, in their order."""
    counts: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        assert record.key is not None
        counts[record.key.decode()].append(int(text_headers(record.headers)["ce_subject"].split("#")[1]))
    return dict(counts)
