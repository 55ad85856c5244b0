"""Who looks for Wyoming servers on the network finds this one, while it is there."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from voiceforge.api.wyoming_server.announcement import SERVICE_TYPE
from voiceforge.main.build import build
from voiceforge.main.settings import Settings
from voiceforge.main.wyoming import WyomingPort

_PATIENCE_S = 30.0


async def test_it_is_found_and_taken_back(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "models": {"offline": True}, "wyoming": {"announce": True}}
    )
    services = build(settings, version="1.2.3", live=True)
    server = WyomingPort(settings, "1.2.3", listener)
    changes: asyncio.Queue[tuple[str, ServiceStateChange]] = asyncio.Queue()

    def heard(zeroconf: object, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if f" {port}." in name:
            changes.put_nowait((name, state_change))

    async with AsyncZeroconf(interfaces=["127.0.0.1"]) as ears, asyncio.timeout(_PATIENCE_S):
        browser = AsyncServiceBrowser(ears.zeroconf, SERVICE_TYPE, handlers=[heard])
        await server.open(services)
        name, change = await changes.get()
        assert change is ServiceStateChange.Added
        found = AsyncServiceInfo(SERVICE_TYPE, name)
        assert await found.async_request(ears.zeroconf, 5000)
        assert (found.port, found.parsed_addresses()) == (port, ["127.0.0.1"])
        await server.close(0.0)
        while (await changes.get())[1] is not ServiceStateChange.Removed:
            pass
        await browser.async_cancel()
    assert services.streams is not None
    services.engines.close(grace_s=5)
    services.streams.close()
    services.transcriptions.close()
