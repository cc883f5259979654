"""
A subscriber that is killed: prints the number of each fact it has processed, in the way that *mode* names.

``print``: that alone. ``copy``: writes the fact to ``<name>.out`` first, exactly once.
"""

import asyncio
import sys

from tests.broker.subscribe_world import Shop


async def main(kafka: str, name: str, mode: str) -> None:
    """Subscribe to the shop *name* for ever."""
    shop = Shop(kafka, name)
    async with shop.subscribed(exactly_once=mode == "copy", commit_every_s=0.05) as facts:
        async for record in facts:
            if mode == "copy":
                async with facts.transaction() as tx:
                    await tx.send(shop.out, key=record.key, value=record.event)
            print(record.event.conversation_id, flush=True)  # noqa: T201 - what the test reads
            await asyncio.sleep(0.005)


asyncio.run(main(*sys.argv[1:]))
