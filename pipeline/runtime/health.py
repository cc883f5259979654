"""The admin port: ``/live``, ``/ready`` and ``/metrics``."""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline.runtime.metrics import Metrics
from pipeline.settings import AdminSettings

__all__ = ["AdminServer"]


class AdminServer:
    """
    Serves health and metrics; *unready* tells what is not ready and why, empty when all is.

    *stuck* tells for whose sake the process has to be started anew: ``/live`` is 503 then.
    """

    name = "admin"

    def __init__(
        self,
        settings: AdminSettings,
        metrics: Metrics,
        unready: Callable[[], Mapping[str, str]],
        stuck: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._unready = unready
        self._stuck = stuck
        self._stopping = asyncio.Event()
        self.port = 0

    @property
    def ready(self) -> bool:
        """Whether it listens."""
        return self.port > 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._settings.host}:{self.port}"

    def stop(self) -> None:
        """Serve no longer."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until ``stop``."""
        application = web.Application()
        application.router.add_get("/live", self._live)
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/metrics", self._scraped)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._settings.host, self._settings.port).start()
            self.port = runner.addresses[0][1]
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        stuck = dict(self._stuck())
        return web.json_response({"live": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    async def _ready(self, _: web.Request) -> web.Response:
        unready = dict(self._unready())
        return web.json_response({"ready": not unready, "unready": unready}, status=503 if unready else 200)

    async def _scraped(self, _: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
