"""What goes wrong on a bad day, done on purpose to a started server: who may notice, and what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

Start = Callable[..., subprocess.Popen[str]]

NO_STORE = {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}


class Served:
    """A started server: what it answers, what it counts, and the processes it consists of."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("VoiceForge listens on http://127.0.0.1:"), line
        self.url = line.split()[3]
        self._root = psutil.Process(process.pid)
        self._temp_dir = data_dir / "tmp"
        self.http = httpx.AsyncClient(
            base_url=self.url, timeout=90, limits=httpx.Limits(max_connections=None)
        )

    async def transcribe(self, content: bytes) -> httpx.Response:
        return await self.http.post("/v1/transcriptions", content=content, headers=NO_STORE)

    async def wait_until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + 60
        while not await condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def is_ready(self) -> bool:
        return (await self.http.get("/health/ready")).status_code == 200

    async def counted(self, name: str) -> float:
        """A metric, summed over its labels."""
        text = (await self.http.get("/metrics")).text
        return sum(map(float, re.findall(rf"^voiceforge_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))

    async def is_decoding(self) -> bool:
        return await self.counted("batch_rows_count") > 0

    async def has_decoded_more_than(self, batches: float) -> bool:
        return await self.counted("batch_rows_count") > batches

    async def is_at_rest(self) -> bool:
        """Nobody is being answered but this question, nothing waits, nothing lies about."""
        stats = (await self.http.get("/stats")).json()
        waiting = stats["requests_in_flight"] > 1 or stats["queue_depth"] or await self.open_requests()
        return not waiting and not self.temp_files()

    async def open_requests(self) -> int:
        """Requests that hold a place in the queue of a model."""
        checks = (await self.http.get("/health")).json()["checks"]
        return int(next(check["data"]["open_requests"] for check in checks if check["name"] == "queue"))

    def temp_files(self) -> list[Path]:
        return list(self._temp_dir.iterdir())

    def engine_host(self) -> psutil.Process | None:
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if "voiceforge.main.engine_host" in process.cmdline():
                    return process
        return None

    def family(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def rss_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self.family())


@pytest.fixture
async def serve(start: Start, environment: dict[str, str]) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Starts a server, with its model in memory, from settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def served(**settings: str) -> Served:
            chosen = {f"VOICEFORGE_{name}": value for name, value in settings.items()}
            found = Served(
                start("serve", "--port", "0", settings=chosen), Path(environment["VOICEFORGE_DATA_DIR"])
            )
            await stack.enter_async_context(found.http)
            await found.wait_until(found.is_ready)
            return found

        yield served


@pytest.fixture
def short(clips: dict[str, Path]) -> bytes:
    return clips["beckett"].read_bytes()


Serve = Callable[..., Awaitable[Served]]


def check_answer(answer: httpx.Response) -> str | None:
    """The text; None for the one error that is allowed, which says that trying again is worth it."""
    if answer.status_code == 200:
        return str(answer.json()["text"])
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("engine_crashed", True)
    assert int(answer.headers["Retry-After"]) >= 1
    return None


@pytest.mark.parametrize("kills", [1, 2])
async def test_an_engine_host_killed_under_32_requests(serve: Serve, short: bytes, kills: int) -> None:
    server = await serve()
    coming = [asyncio.ensure_future(server.transcribe(short)) for _ in range(32)]
    for _ in range(kills):
        decoded = await server.counted("batch_rows_count")
        await server.wait_until(lambda before=decoded: server.has_decoded_more_than(before))
        host = server.engine_host()
        assert host is not None
        host.kill()
    texts = [check_answer(answer) for answer in await asyncio.gather(*coming)]
    answered = {text for text in texts if text is not None}
    assert len(answered) == 1
    assert "try again" in answered.pop().lower()
    if kills == 1:  # each may be tried once more, so nobody has to notice
        assert None not in texts
    assert "try again" in (check_answer(await server.transcribe(short)) or "").lower()


async def test_an_engine_host_that_stands_still(serve: Serve, short: bytes) -> None:
    server = await serve(ENGINE__SILENT_TIMEOUT_S="1")
    stopped = server.engine_host()
    assert stopped is not None
    coming = [asyncio.ensure_future(server.transcribe(short)) for _ in range(16)]
    await server.wait_until(server.is_decoding)
    os.kill(stopped.pid, signal.SIGSTOP)
    texts = {check_answer(answer) for answer in await asyncio.gather(*coming)}
    assert len(texts) == 1
    assert "try again" in (texts.pop() or "").lower()
    after = server.engine_host()
    assert after is not None
    assert after.pid != stopped.pid
    assert not stopped.is_running()


class Leaver:
    """A client that sends part of a request, or all of it, and is gone before the answer."""

    def __init__(self, url: str, content: bytes, *, sends: float) -> None:
        address = urlsplit(url)
        head = (
            f"POST /v1/transcriptions HTTP/1.1\r\nHost: {address.netloc}\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in NO_STORE.items())
            + f"Content-Length: {len(content)}\r\n\r\n"
        ).encode()
        assert address.hostname is not None
        self._socket = socket.create_connection((address.hostname, address.port or 80), timeout=60)
        self._socket.sendall(head + content[: int(len(content) * sends)])

    def leave(self, *, politely: bool) -> None:
        if not politely:  # a reset instead of an end
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


async def test_clients_that_leave_cost_nothing_that_lasts(serve: Serve, short: bytes) -> None:
    server = await serve()
    processes = len(server.family())

    async def visit(count: int) -> float:
        """Half of them leave in the middle of the upload, half of them while they wait for the text.
        Returns how many windows were decoded after they had begun to leave."""
        decoded = await server.counted("batch_rows_count")
        leavers = [
            await asyncio.to_thread(Leaver, server.url, short, sends=sends)
            for _ in range(count // 2)
            for sends in (0.5, 1.0)
        ]

        async def all_here() -> bool:
            return await server.counted("requests_in_flight") > 0.5 * count + 2

        await server.wait_until(all_here)
        await server.wait_until(lambda: server.has_decoded_more_than(decoded))
        decoded = await server.counted("batch_rows_sum")
        for number, leaver in enumerate(leavers):
            leaver.leave(politely=number % 4 < 2)
        await server.wait_until(server.is_at_rest)
        await server.wait_until(as_few_processes)
        return await server.counted("batch_rows_sum") - decoded

    async def as_few_processes() -> bool:
        return len(server.family()) <= processes

    for _ in range(2):
        await visit(200)  # what a busy server takes, it keeps for the next time
    before = server.rss_bytes()
    # The batches in progress, and those that began before the last had left: not the 100 that waited.
    assert await visit(200) < 40
    assert server.rss_bytes() - before < 100e6
    assert "try again" in (check_answer(await server.transcribe(short)) or "").lower()


async def test_more_requests_than_the_queue_takes(serve: Serve, short: bytes) -> None:
    server = await serve(QUEUE__MAX_REQUESTS="16")
    await asyncio.gather(*(server.transcribe(short) for _ in range(8)))  # it knows its own speed by now
    refusals: list[int] = []

    async def client_that_comes_back() -> int:
        """How often it was refused before it was served."""
        for refused in range(6):
            answer = await server.transcribe(short)
            if answer.status_code == 200:
                return refused
            assert answer.status_code == 429, answer.text
            assert answer.json()["error"]["code"] == "overloaded"
            refusals.append(int(answer.headers["Retry-After"]))
            await asyncio.sleep(refusals[-1])
        raise AssertionError("it came back five times, each time when it was told to")

    refused = await asyncio.gather(*(client_that_comes_back() for _ in range(64)))
    assert refused.count(0) >= 16
    assert refused.count(0) < 64
    assert all(1 <= told_s <= 120 for told_s in refusals)
    await server.wait_until(server.is_at_rest)


async def test_a_long_recording_lets_short_ones_pass(
    serve: Serve, short: bytes, clips: dict[str, Path], tmp_path: Path
) -> None:
    import numpy as np
    import soundfile

    samples, rate_hz = soundfile.read(clips["two_cities"], dtype="float32")
    soundfile.write(tmp_path / "long.flac", np.tile(samples, 20), rate_hz)
    server = await serve()
    long = asyncio.ensure_future(server.transcribe((tmp_path / "long.flac").read_bytes()))
    await server.wait_until(server.is_decoding)
    for _ in range(6):
        before = await server.counted("batch_rows_count")
        assert "try again" in (check_answer(await server.transcribe(short)) or "").lower()
        # What was being decoded when it came, its own, and what two workers take beside it: not what waits.
        assert await server.counted("batch_rows_count") - before <= 6
        assert not long.done()
    long.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await long
    await server.wait_until(server.is_at_rest)
