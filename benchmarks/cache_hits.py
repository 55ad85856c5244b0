"""What an earlier result costs: requests per second of one core, beside a framework that does nothing else.

The recording is the same each time, so every answer but the first is an earlier result. The reference is a
FastAPI application on the same server library that takes the SHA-256 of what it gets: as a form that FastAPI
parses, and as a raw body. Both are started here, in processes of their own, and take turns; the clients are
threads of this one. CPU-seconds of a server's processes are counted, so that neighbours count little.

    python benchmarks/cache_hits.py --rounds 5 --json build/bench/cache_hits.json
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from figures import Bound, Report, median, parser, row
from processes import environment, serving
from watches import tree_cpu_s

from voiceforge.services.samples import sample_recordings
from voiceforge.testing.redis_server import find_redis, redis_server

_BOUNDARY = "0123456789abcdef0123456789abcdef"  # as long as HTTP clients make them
_START_S = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """request: as it goes over the wire, every time the same."""

    name: str
    pid: int
    port: int
    request: bytes
    must_say: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    requests: int
    wall_s: float
    cpu_s: float

    @property
    def per_core_s(self) -> float:
        return self.requests / self.cpu_s


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--seconds", type=float, default=2.0, help="length of a turn (default %(default)s)")
    made.add_argument("--clients", type=int, default=4, help="connections at a time (default %(default)s)")
    made.add_argument("--file", type=Path, default=sample_recordings()[0], help="the recording")
    made.add_argument("--reference", type=int, metavar="PORT", help="be the reference, on this port")
    args = made.parse_args()
    if args.reference:
        _serve_reference(args.reference)
        return
    report = Report("cache_hits")
    with ExitStack() as stack:
        targets = _targets(args, stack)
        turns: dict[str, list[Turn]] = {target.name: [] for target in targets}
        for target in targets:
            _turn(target, 1, 0.2)  # the first one is worked on
        for number in range(args.rounds):
            print(f"round {number + 1}/{args.rounds}", file=sys.stderr)
            for target in targets[:: 1 if number % 2 else -1]:
                turns[target.name].append(_turn(target, args.clients, args.seconds))
    rates = {name: median([turn.per_core_s for turn in took]) for name, took in turns.items()}
    report.details = {
        "body_bytes": args.file.stat().st_size,
        "clients": args.clients,
        "digest_us": _digest_us(args.file.read_bytes()),
        "turns": {
            name: [{"requests": t.requests, "wall_s": t.wall_s, "cpu_s": t.cpu_s} for t in took]
            for name, took in turns.items()
        },
    }
    size_kb = args.file.stat().st_size / 1000
    for title, ours, theirs, bound in (
        (f"cache hit, {size_kb:.0f} KB wav as the body: requests per core-second", "raw", "bare raw", 1800),
        ("… as a form", "form", "bare form", 1000),
        ("… as OpenAI's form", "openai", "bare form", 1000),
        ("… as the body, from Redis", "redis", "bare raw", None),
    ):
        if ours in rates:
            report.rows.append(
                row(
                    title,
                    rates[ours],
                    reference=f"{rates[theirs]:.0f} FastAPI, SHA-256 only",
                    bound=Bound(bound, "at least") if bound else None,
                )
            )
    report.finish(args.json)


def _targets(args: Namespace, stack: ExitStack) -> list[Target]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    audio = args.file.read_bytes()
    as_form = _form(audio)
    form_type = f"multipart/form-data; boundary={_BOUNDARY}"
    kept = {"VOICEFORGE_CACHE__ENABLED": "true"}
    ours = stack.enter_context(serving(environment(folder / "data", **kept)))
    port = int(ours.url.rpartition(":")[2])
    bare_pid, bare_port = stack.enter_context(_reference())
    hit = b"x-cache: hit"
    targets = [
        Target("bare raw", bare_pid, bare_port, _request("/raw", "audio/wav", audio), b"200 ok"),
        Target("bare form", bare_pid, bare_port, _request("/form", form_type, as_form), b"200 ok"),
        Target("raw", ours.pid, port, _request("/v1/transcriptions", "audio/wav", audio), hit),
        Target("form", ours.pid, port, _request("/v1/transcriptions", form_type, as_form), hit),
        Target("openai", ours.pid, port, _request("/v1/audio/transcriptions", form_type, as_form), hit),
    ]
    if find_redis() is not None:
        (folder / "redis").mkdir()
        redis = stack.enter_context(redis_server(folder / "redis"))
        env = environment(folder / "other", **kept, VOICEFORGE_CACHE__URL=redis.url)
        shared = stack.enter_context(serving(env))
        request = _request("/v1/transcriptions", "audio/wav", audio)
        targets.append(Target("redis", shared.pid, int(shared.url.rpartition(":")[2]), request, hit))
    return targets


def _request(path: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _form(audio: bytes) -> bytes:
    def part(name: str, value: bytes, more: str = "") -> bytes:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        return head.encode() + value + b"\r\n"

    file = part("file", audio, '; filename="clip.wav"\r\nContent-Type: audio/wav')
    return part("model", b"whisper-1") + file + f"--{_BOUNDARY}--\r\n".encode()


def _turn(target: Target, clients: int, seconds: float) -> Turn:
    """Connections that ask again as soon as they are answered."""
    over = threading.Event()
    done: list[int] = []

    def ask() -> None:
        answered = 0
        with socket.create_connection(("127.0.0.1", target.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not over.is_set():
                head = _exchange(connection, target.request)
                if answered and target.must_say not in head:
                    raise SystemExit(f"{target.name} answers {head!r}")
                answered += 1
        done.append(answered)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    cpu_s, started = tree_cpu_s(target.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - started
    if len(done) < clients:
        raise SystemExit(f"{target.name} did not answer")
    return Turn(sum(done), wall_s, tree_cpu_s(target.pid) - cpu_s)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """The head of the reply, in lower case, once all of it is here."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.lower().partition(b"\r\n\r\n")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head


def _digest_us(audio: bytes) -> float:
    """CPU of the digest alone, which nobody can save."""
    times = []
    for _ in range(50):
        started = time.thread_time()
        hashlib.sha256(audio).digest()
        times.append(time.thread_time() - started)
    return 1e6 * median(times)


@contextmanager
def _reference() -> Iterator[tuple[int, int]]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "--reference", str(port)])
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _serve_reference(port: int) -> None:
    app = FastAPI()

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, str]:
        digest = hashlib.sha256()
        async for piece in request.stream():
            digest.update(piece)
        return {"sha256": digest.hexdigest()}

    @app.post("/form")
    async def form(file: UploadFile) -> dict[str, str]:
        digest = hashlib.sha256()
        while piece := await file.read(1 << 20):
            digest.update(piece)
        return {"sha256": digest.hexdigest()}

    settings: dict[str, Any] = {"http": "httptools", "loop": "asyncio", "log_level": "warning"}
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, lifespan="off", **settings)


if __name__ == "__main__":
    main()
