"""Every route and socket of a whole server, asked wrongly: bodies have an end, nothing breaks, and no answer
tells how the server is made."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from voiceforge.api.http.config import HttpConfig
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.job_server import JobServer, job_server

FOLDER = "where-files-are-kept"
MOST_BYTES = 50_000
UPLOAD_BYTES = 200_000
SOCKETS = ("/v1/stream", "/v1/listen", "/v1/realtime")

INSIDES = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/usr/|/tmp/|/proc/|/etc/|<class|object at 0x|sqlalchemy|sqlite"
    r"|psycopg|\bSELECT\b|\bINSERT\b|pydantic|starlette|fastapi|Errno|\w+Error:|errors\." + f"|{FOLDER}"
)
NAMES = (
    "none",
    "..%2f..%2fx",
    "%00",
    "' OR 1=1 --",
    "a" * 2000,
    "%ff%fe",
    "-1",
    "\N{PILE OF POO}",
    "{id}",
)
BODIES: tuple[tuple[str, bytes], ...] = (
    ("application/json", b""),
    ("application/json", b"{"),
    ("application/json", b"[]"),
    ("application/json", b'{"url": 1, "events": {"a": []}, "ids": null}'),
    ("application/json", b'{"a":' * 9000),
    ("application/json", b"\xff\xfe"),
    ("multipart/form-data", b"x"),
    ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff'),
    ("application/x-www-form-urlencoded", b"a=%ff"),
    ("audio/wav", b"RIFF\xff\xff\xff\xffWAVEfmt "),
    ("text/plain", b"\x00" * 100),
    ("application/offset+octet-stream", b"x"),
)
QUERIES = ("", "?limit=-1&offset=x&cursor=%00", "?model=../../x&language=%ff&mode=async&format=exe")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    folder: Path = tmp_path_factory.mktemp("hard") / FOLDER
    folder.mkdir()
    config = HttpConfig(
        temp_dir=folder, version="1.2.3", max_body_bytes=MOST_BYTES, max_upload_bytes=UPLOAD_BYTES
    )
    with job_server(f"sqlite:///{folder}/jobs.db", folder, vad=SileroModel(), config=config) as made:
        yield made


@pytest.fixture
def client(server: JobServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    """Every method and path there is."""
    paths: Mapping[str, Mapping[str, Any]] = client.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(found) > 35
    return found


def filled(path: str, name: str) -> str:
    return re.sub(r"\{[^}]+\}", lambda _: name, path)


def test_no_answer_tells_how_the_server_is_made(client: httpx.Client) -> None:
    seen: set[int] = set()
    bodies = itertools.cycle(BODIES)
    for method, path in operations(client):
        names = NAMES if "{" in path else NAMES[:1]
        wrong = [(name, query) for name in names for query in QUERIES]
        if method != "GET":
            wrong *= max(1, len(BODIES) // len(wrong))
        for name, query in wrong:
            content_type, body = next(bodies)
            reply = client.request(
                method,
                filled(path, name) + query,
                content=body,
                headers={
                    "Content-Type": content_type,
                    "Tus-Resumable": "1.0.0",
                    "Upload-Offset": "9" * 30,
                    "Upload-Metadata": "!",
                    "Idempotency-Key": "'",
                    "Last-Event-ID": "x",
                    "Range": "bytes=9-1",
                },
            )
            asked = f"{method} {path} {name!r} {query} {content_type} {body[:40]!r}"
            assert reply.status_code < 500 or reply.status_code == 503, f"{asked}: {reply.text}"
            seen.add(reply.status_code)
            if reply.status_code >= 400:
                told = f"{dict(reply.headers)} {reply.text}".replace(filled(path, name), "")
                assert not (leak := INSIDES.search(told)), f"{asked}: {leak}"
                assert method == "HEAD" or "error" in reply.json() or "err_code" in reply.json(), asked
    assert {400, 404, 422} <= seen


def test_every_body_has_an_end(client: httpx.Client) -> None:
    """Uploads take more, and no more than uploads may be. What is refused for another reason is not read."""
    told_so = 0
    for method, path in operations(client):
        for content_type in ("application/json", "text/plain", "application/offset+octet-stream"):
            taken = 0

            def endless() -> Iterator[bytes]:
                nonlocal taken
                for _ in range(2000):
                    taken += 65_536
                    yield b" " * 65_536

            headers = {"Content-Type": content_type, "Tus-Resumable": "1.0.0", "Upload-Length": "1000"}
            asked = f"{method} {path} {content_type}"
            try:
                reply = client.request(method, filled(path, "none"), content=endless(), headers=headers)
            except (httpx.WriteError, httpx.RemoteProtocolError):
                continue  # the reply was out, and what kept coming was no longer read
            assert 200 <= reply.status_code < 500 or reply.status_code == 503, asked
            # What is thrown away after a reply has an end too.
            assert taken < 64 * 1024 * 1024, asked
            if reply.status_code == 413:
                told_so += 1
                assert re.search(r"[\d,]{5,} bytes", reply.text), f"{asked}: {reply.text}"
    assert told_so > 10


def told_by_socket(url: str, *messages: str | bytes) -> str:
    """Everything the server says until it hangs up, or has nothing more to say."""
    told = ""
    try:
        with connect(url) as socket:
            for message in messages:
                socket.send(message)
            while True:
                told += str(socket.recv(timeout=1))
    except InvalidStatus as refused:
        return f"{refused.response.headers} {refused.response.body.decode()}"
    except ConnectionClosed as ended:
        return f"{told} {ended}"
    except TimeoutError:
        return told


@pytest.mark.parametrize("path", SOCKETS)
def test_no_socket_tells_how_the_server_is_made(server: JobServer, path: str) -> None:
    url = server.url.replace("http", "ws") + path
    for query in ("?encoding=exe", "?sample_rate=-1&channels=x", "?model=../../x", "?language=%ff"):
        told = told_by_socket(url + query, "{")
        assert "internal_error" not in told
        assert not (leak := INSIDES.search(told)), f"{query}: {leak}"
    for message in ("{", "[]", '{"type": {}}', json.dumps({"type": "configure", "options": 1}), b"\xff" * 3):
        told = told_by_socket(url, message, '{"type": "close"}', '{"type": "CloseStream"}')
        assert told
        assert not (leak := INSIDES.search(told)), f"{message!r}: {leak}"
