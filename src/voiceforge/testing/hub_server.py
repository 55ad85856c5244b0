"""A small server that speaks the model hub's HTTP API, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

COMMIT = "a" * 40
REPOSITORY = "acme/tiny-ct2"
FILES = {
    "config.json": b'{"alignment_heads": []}',
    "model.bin": bytes(range(256)) * 1200,  # 300 KiB: several network reads
    "tokenizer.json": b"{}",
    "vocabulary.txt": b"a\nb\n",
    "README.md": b"not wanted",
    "onnx/model.bin": b"not wanted either",
}


@dataclass
class HubServer:
    """What the hub answers, and what it was asked. `cuts`: body bytes to send before hanging up, one for
    each request of the large file; then it behaves."""

    commit: str = COMMIT
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    served: dict[str, bytes] = field(default_factory=dict)  # bytes sent instead of the announced ones
    status: int = 200
    error_code: str = ""
    cuts: list[int] = field(default_factory=list)
    failures: int = 0  # 503s before it behaves
    ignores_range: bool = False
    redirect_to: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    gate: asyncio.Event | None = None  # the large file waits here
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    endpoint: str = ""
    licence: object = "mit"  # as the page of the repository says

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer on a free port of 127.0.0.1; `endpoint` says where."""
        listener = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with listener:
            yield

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            target = head[0].split()[1]
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
            self.requests.append((target, headers))
            await self._respond(writer, target, headers)
        finally:
            writer.close()

    async def _respond(self, writer: asyncio.StreamWriter, target: str, headers: dict[str, str]) -> None:
        url = urlsplit(target)
        if self.failures:
            self.failures -= 1
            return _send(writer, 503, b"")
        if self.status != 200:
            return _send(writer, self.status, b"", {"X-Error-Code": self.error_code})
        if url.path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            assert parse_qs(url.query) == {"blobs": ["true"]}
            return _send(writer, 200, json.dumps(self._listing()).encode())
        prefix = f"/{REPOSITORY}/resolve/{self.commit}/"
        if not url.path.startswith(prefix):
            return _send(writer, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if self.redirect_to:
            return _send(writer, 302, b"", {"Location": self.redirect_to + url.path})
        name = url.path.removeprefix(prefix)
        if name == "model.bin" and self.gate:
            self.waiting.set()
            await self.gate.wait()
        body, extra, status = self.served.get(name, self.files[name]), {}, 200
        if "range" in headers and not self.ignores_range:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return _send(writer, 416, b"")
            extra, status = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, 206
            body = body[start:]
        cut = self.cuts.pop(0) if name == "model.bin" and self.cuts else None
        return _send(writer, status, body, extra, cut)

    def _listing(self) -> dict[str, object]:
        rows: list[dict[str, object]] = []
        for name, body in self.files.items():
            row: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": blob_sha1(body)}
            if name == "model.bin":
                row["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 1}
            rows.append(row)
        card = {"license": self.licence}
        return {"id": REPOSITORY, "sha": self.commit, "siblings": rows, "cardData": card}


def blob_sha1(body: bytes) -> str:
    """As git, and so the hub, names a small file."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    cut: int | None = None,
) -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body[:cut])


@contextmanager
def hub_server(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    """One that answers in a thread while the block runs: for programs in other processes."""
    hub = HubServer(files=dict(files))
    loop = asyncio.new_event_loop()
    up = threading.Event()
    over = asyncio.Event()

    async def serve() -> None:
        async with hub.listening():
            up.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="hub")
    thread.start()
    up.wait()
    try:
        yield hub
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
