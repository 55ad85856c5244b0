"""Uploads on a real socket: limits that bite while bytes arrive, and no temp file left behind, ever."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from voiceforge.api.http.temp_files import TempFiles
from voiceforge.api.http.uploads import Uploads
from voiceforge.services.recordings import AudioBytes, AudioFile
from voiceforge.speech.transcript import Progress
from voiceforge.testing.live_server import LiveServer

MB = 1_000_000
PATIENCE_S = 20.0
DOORS = ["/v1/transcriptions", "/transcribe", "/v1/audio/transcriptions"]


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=PATIENCE_S)


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + data + b"\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def read_reply(conn: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One reply with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        got = conn.recv(65536)
        assert got, f"the connection ended after {data!r}"
        data += got
    top, _, body = data.partition(b"\r\n\r\n")
    lines = top.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        got = conn.recv(65536)
        assert got, "the body is cut"
        body += got
    return int(lines[0].split()[1]), headers, body


def closed_by_server(conn: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return conn.recv(1) == b""
    return True


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true; how fast does not matter."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def send_until_answered(conn: socket.socket, piece: bytes, most: int) -> int:
    """Keep sending until a reply can be read; returns the bytes that went out."""
    sent = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < most and not select.select([conn], [], [], 0)[0]:
            conn.sendall(piece)
            sent += len(piece)
    return sent


FORM = "Content-Type: multipart/form-data; boundary=B"


@pytest.mark.parametrize("path", DOORS)
def test_an_endless_form_is_refused_while_it_arrives(serve, scripted, temp_dir, path):
    server = serve(max_upload_bytes=MB)
    with connect(server) as conn:
        conn.sendall(head(path, FORM, "Transfer-Encoding: chunked"))
        conn.sendall(chunk(part("file", b"x", "a.wav")[:-2]))
        sent = send_until_answered(conn, chunk(b"y" * 65536), most=500 * MB)
        status, headers, body = read_reply(conn)
        assert status == 413
        assert json.loads(body)["error"]["code"] == "upload_too_large"
        assert headers["connection"] == "close"
        assert sent < 100 * MB
        assert eventually(lambda: empty(temp_dir))
    assert scripted.requests == []


def test_an_endless_raw_body_is_refused_while_it_arrives(serve, temp_dir):
    server = serve(max_upload_bytes=MB)
    with connect(server) as conn:
        conn.sendall(head("/v1/transcriptions", "Content-Type: audio/wav", "Transfer-Encoding: chunked"))
        sent = send_until_answered(conn, chunk(b"y" * 65536), most=500 * MB)
        assert read_reply(conn)[0] == 413
        assert sent < 100 * MB
        assert eventually(lambda: empty(temp_dir))


@pytest.mark.parametrize("path", DOORS)
def test_a_declared_size_beyond_the_limit_is_refused_before_any_byte(serve, temp_dir, path):
    server = serve(max_upload_bytes=MB)
    with connect(server) as conn:
        conn.sendall(head(path, FORM, "Content-Length: 50000000000"))
        assert read_reply(conn)[0] == 413
    assert empty(temp_dir)


def test_a_client_that_asks_first_is_never_told_to_go_on(serve):
    server = serve(max_upload_bytes=MB)
    with connect(server) as conn:
        conn.sendall(
            head(
                "/v1/transcriptions",
                "Content-Type: audio/wav",
                "Content-Length: 5000000",
                "Expect: 100-continue",
            )
        )
        assert read_reply(conn)[0] == 413
        assert closed_by_server(conn)


def test_the_limit_is_on_the_file_not_on_the_form_around_it(serve, scripted):
    server = serve(max_upload_bytes=MB)
    exact = {"file": ("a", b"x" * MB)}
    assert httpx.post(f"{server.url}/v1/transcriptions", files=exact).status_code == 200
    over = {"file": ("a", b"x" * (MB + 1))}
    assert httpx.post(f"{server.url}/v1/transcriptions", files=over).status_code == 413
    assert [len(upload) for upload in scripted.uploads] == [MB]


def test_an_unmodified_http_client_reads_the_413_of_a_large_upload(serve):
    server = serve(max_upload_bytes=MB)
    big = b"x" * (60 * MB)
    for _ in range(3):
        assert httpx.post(f"{server.url}/v1/transcriptions", files={"file": ("a", big)}).status_code == 413
        assert httpx.post(f"{server.url}/v1/transcriptions", content=big).status_code == 413


def test_a_small_refused_upload_keeps_its_connection(serve):
    server = serve(api_key="right-key")
    with connect(server) as conn:
        for _ in range(2):
            body = part("file", b"x" * 5000, "a") + b"--B--\r\n"
            conn.sendall(head("/v1/transcriptions", FORM, f"Content-Length: {len(body)}"))
            conn.sendall(body)
            status, headers, _ = read_reply(conn)
            assert status == 401
            assert "connection" not in headers


def test_requests_follow_each_other_on_one_connection(serve, scripted):
    server = serve()
    with connect(server) as conn:
        for number in range(3):
            body = part("file", b"%d" % number, "a") + b"--B--\r\n"
            conn.sendall(head("/v1/audio/transcriptions", FORM, "Transfer-Encoding: chunked"))
            for start in range(0, len(body), 7):
                conn.sendall(chunk(body[start : start + 7]))
            conn.sendall(b"0\r\n\r\n")
            assert read_reply(conn)[0] == 200
    assert scripted.uploads == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\r\n", b"--B", b"\r\n--B", b"\r\n--Bx\r\n--", bytes(range(256)) * 9000, b"\r\n--" * 60_000],
    ids=[
        "empty",
        "one byte",
        "newline",
        "boundary start",
        "boundary",
        "near boundary",
        "2 MB",
        "adversarial",
    ],
)
async def test_the_file_arrives_byte_for_byte(make_app, scripted, content, temp_dir):
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post("/v1/transcriptions", files={"file": ("a", content)})
    if content:
        assert reply.status_code == 200
        assert scripted.uploads == [content]
    else:
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == "audio_empty"
    assert empty(temp_dir)


MIB = 1 << 20
SIZES = st.sampled_from([1, 2, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7]) | st.integers(1, 5000)
CUTS = st.lists(st.integers(0, 3 * MIB), max_size=12)


@settings(max_examples=40, deadline=None)
@given(size=SIZES, cuts=CUTS, as_form=st.booleans())
def test_however_a_body_is_cut_the_recording_and_its_digest_are_whole(size, cuts, as_form):
    near_boundaries = b"\r\n--B" + bytes(range(256))
    content = (near_boundaries * (size // len(near_boundaries) + 1))[:size]
    assume(not content.endswith(b"\r\n--B"))  # that would be the end of the part
    body = part("file", content, "a") + b"--B--\r\n" if as_form else content
    edges = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    messages = [
        {"type": "http.request", "body": body[start:end], "more_body": end < len(body)}
        for start, end in itertools.pairwise(edges)
    ]
    kept: list[tuple[bytes, bytes, bool]] = []

    async def app(scope, receive, send):
        request = Request(scope, receive)
        uploads = Uploads(100 * MIB, 5)
        source = (await uploads.form(request)).upload if as_form else await uploads.raw(request)
        match source:
            case AudioBytes():
                kept.append((source.joined(), source.sha256, False))
            case AudioFile():
                kept.append((source.path.read_bytes(), source.sha256, True))
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return messages.pop(0)

    async def send(message):
        pass

    with tempfile.TemporaryDirectory() as folder:
        scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=B")]}
        asyncio.run(TempFiles(app, Path(folder))(scope, receive, send))
        assert empty(Path(folder))
    [(arrived, digest, on_disk)] = kept
    assert arrived == content
    assert digest == hashlib.sha256(content).digest()
    assert on_disk == (size >= MIB)


@pytest.mark.parametrize("path", DOORS)
def test_a_client_that_leaves_in_the_middle_leaves_no_file(serve, scripted, temp_dir, path, services):
    server = serve()
    with connect(server) as conn:
        conn.sendall(head(path, FORM, "Content-Length: 100000000"))
        conn.sendall(part("file", b"x" * 3 * MB, "a.wav"))
        assert eventually(lambda: not empty(temp_dir))
    assert eventually(lambda: empty(temp_dir))
    assert eventually(lambda: services.metrics.total("requests", route=path, status="499") == 1)
    assert scripted.requests == []


def test_a_stalled_upload_is_given_up(serve, temp_dir):
    server = serve(upload_idle_s=0.2)
    with connect(server) as conn:
        conn.sendall(head("/v1/transcriptions", FORM, "Content-Length: 1000"))
        conn.sendall(part("file", b"x", "a"))
        status, _, body = read_reply(conn)
        assert status == 422
        assert "nothing for 0.2 s" in json.loads(body)["error"]["message"]
    assert empty(temp_dir)


MALFORMED = {
    "no closing boundary": part("file", b"x", "a"),
    "cut in a header": part("file", b"x", "a") + b"--B\r\nContent-Dispo",
    "no boundary at all": b"just some bytes",
    "nothing": b"",
    "part without a name": b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n",
    "part without headers": b"--B\r\n\r\nx\r\n--B--\r\n",
    "bad header": b"--B\r\nConten\x00t: x\r\n\r\nx\r\n--B--\r\n",
    "two files": part("file", b"x", "a") + part("file", b"y", "b") + b"--B--\r\n",
    "file of another name": part("audio", b"x", "a.wav") + b"--B--\r\n",
    "only fields": part("model", b"fake") + b"--B--\r\n",
    "field not UTF-8": part("prompt", b"\xff\xfe") + part("file", b"x", "a") + b"--B--\r\n",
    "name not UTF-8": b'--B\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--B--\r\n',
    "too many parts": part("keyterm", b"x") * 400 + part("file", b"x", "a") + b"--B--\r\n",
    "endless header": b"--B\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    "too much text": part("prompt", b"x" * 17_000_000) + part("file", b"x", "a") + b"--B--\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("path", ["/v1/transcriptions", "/v1/audio/transcriptions"])
async def test_malformed_forms_are_refused_and_leave_nothing(make_app, scripted, temp_dir, path, name):
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post(
            path, content=MALFORMED[name], headers={"Content-Type": "multipart/form-data; boundary=B"}
        )
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["message"]
    assert scripted.requests == []
    assert empty(temp_dir)


async def test_a_file_under_another_name_is_told_its_name(client):
    reply = await client.post("/v1/audio/transcriptions", files={"audio": b"x"})
    assert "'audio'" in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == "file"


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
async def test_a_form_without_boundary_is_refused(client, content_type):
    reply = await client.post("/v1/transcriptions", content=b"x", headers={"Content-Type": content_type})
    assert reply.status_code == 422
    assert "boundary" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/transcriptions", "/v1/audio/transcriptions"])
def test_an_unknown_model_before_the_file_is_refused_before_the_file_arrives(serve, temp_dir, path):
    server = serve()
    with connect(server) as conn:
        conn.sendall(head(path, FORM, "Content-Length: 100000000"))
        conn.sendall(part("model", b"nope") + part("file", b"x" * 1000, "a"))
        status, _, body = read_reply(conn)
        assert status == 404
        assert "fake" in json.loads(body)["error"]["message"]
    assert empty(temp_dir)


class Waiting:
    """A script that works until it is stopped."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.stopped = threading.Event()

    async def __call__(self, request):
        self.began.set()
        try:
            yield Progress(0.0, None)
            await asyncio.Event().wait()
        finally:
            # Where a decode is stopped its file is still there, as a thread may be reading it.
            assert request.source.path.exists()
            self.stopped.set()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/transcriptions", b""),
        ("/transcribe", b""),
        ("/v1/audio/transcriptions", b""),
        ("/v1/audio/transcriptions", part("stream", b"true")),
        ("/v1/audio/translations", b""),
    ],
    ids=["native", "simple", "openai", "openai stream", "openai translation"],
)
def test_work_stops_when_its_client_goes_away(serve, scripted, temp_dir, path, fields, services):
    scripted.script = waiting = Waiting()
    server = serve(ping_interval_s=0.05)
    body = fields + part("file", b"x" * 2 * MB, "a") + b"--B--\r\n"
    with connect(server) as conn:
        conn.sendall(head(path, FORM, f"Content-Length: {len(body)}") + body)
        assert waiting.began.wait(PATIENCE_S)
        assert not empty(temp_dir)
        assert not waiting.stopped.is_set()
    assert waiting.stopped.wait(PATIENCE_S)
    assert eventually(lambda: empty(temp_dir))
    assert eventually(lambda: services.metrics.total("requests_in_flight") == 0)
    assert services.metrics.total("errors") == 0


async def test_a_request_cancelled_by_the_server_leaves_no_file(make_app, scripted, temp_dir):
    scripted.script = waiting = Waiting()
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        request = asyncio.create_task(client.post("/v1/transcriptions", content=b"x" * 3 * MB))
        assert await asyncio.to_thread(waiting.began.wait, PATIENCE_S)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert waiting.stopped.is_set()
    assert await asyncio.to_thread(eventually, lambda: empty(temp_dir))


ENDLESS = {
    "header": (b"X: ", b"y" * 10_000),
    "headers": (b"", b"X: y\r\n" * 1000),
    "target": (None, b"y" * 10_000),
    "chunk extension": (b"Transfer-Encoding: chunked\r\n\r\n1;", b"y" * 10_000),
    "trailer": (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ", b"y" * 10_000),
    "trailers": (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X: y\r\n" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_no_body_has_an_end_too(serve, name):
    server = serve()
    begin, more = ENDLESS[name]
    line = b"POST /v1/transcriptions"
    with connect(server) as conn:
        conn.sendall(line if begin is None else line + b" HTTP/1.1\r\nHost: test\r\n" + begin)
        sent = send_until_answered(conn, more, most=50 * MB)
        assert sent < 10 * MB
        with contextlib.suppress(ConnectionResetError):
            assert conn.recv(100).startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_headers_that_are_large_and_end_are_read(serve):
    server = serve()
    headers = {f"X-{number}": "y" * 1000 for number in range(50)}
    assert httpx.post(f"{server.url}/v1/transcriptions", content=b"x", headers=headers).status_code == 200
