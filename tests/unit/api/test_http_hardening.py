"""What stands around all doors: by what name and from which page they are called, how much comes in and how
slowly, and what every reply says to browsers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceforge.api.http.protocol import BoundedHeadProtocol, ConnectionLimits
from voiceforge.api.http.sockets import Socket, open_socket
from voiceforge.testing.live_server import LiveServer, live_server

MakeApp = Callable[..., FastAPI]
PAGE = "https://app.example"
FOREIGN = "https://evil.example"
KEY = {"Authorization": "Bearer right-key"}


@contextlib.asynccontextmanager
async def talking(
    app: FastAPI, base_url: str = "http://test", peer: str = "127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=(peer, 4711))
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as made:
        yield made


# --- what replies say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/health/live", "/v1/models", "/nowhere", "/v1/audio/nowhere", "/docs", "/metrics"],
)
async def test_every_reply_is_data_and_nobody_else_s(client: httpx.AsyncClient, path: str) -> None:
    told = (await client.get(path)).headers
    assert told["x-content-type-options"] == "nosniff"
    assert told["x-frame-options"] == "DENY"
    assert told["referrer-policy"] == "no-referrer"
    assert told["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in told["content-security-policy"]
    assert told["cache-control"] == "no-store"
    assert "strict-transport-security" not in told


async def test_a_transcript_is_not_kept_by_caches_whatever_way_it_came(client: httpx.AsyncClient) -> None:
    whole = await client.post("/v1/transcriptions", content=b"x")
    events = await client.post(
        "/v1/audio/transcriptions",
        files={"file": b"x"},
        data={"stream": "true"},
    )
    assert events.headers["content-type"].startswith("text/event-stream")
    for reply in (whole, events):
        assert "no-store" in reply.headers["cache-control"]


async def test_strict_transport_is_asked_for_only_where_there_is_transport_security(
    make_app: MakeApp,
) -> None:
    async with talking(make_app(), "https://test") as client:
        assert "max-age=" in (await client.get("/health/live")).headers["strict-transport-security"]


async def test_the_page_of_the_docs_may_run_its_own_script_and_no_other(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    policy = dict(
        part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";")
    )
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert scripts
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["script-src"]
    assert "unsafe" not in policy["script-src"]
    assert policy["default-src"] == "'none'"
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/docs/assets/")  # which is 'self'
        asset = await client.get(address)
        assert asset.status_code == 200
        assert "cache-control" not in asset.headers


# --- pages of others -------------------------------------------------------------------------------


async def test_without_a_list_no_other_page_may_read_anything(make_app: MakeApp) -> None:
    async with talking(make_app(api_key="right-key")) as client:
        reply = await client.get("/v1/models", headers={"Origin": PAGE, **KEY})
        assert reply.status_code == 200
        assert "access-control-allow-origin" not in reply.headers


async def test_pages_of_the_list_may_call_and_read_errors_too(make_app: MakeApp) -> None:
    async with talking(make_app(api_key="right-key", cors_origins=(PAGE,))) as client:
        asked = await client.options(
            "/v1/transcriptions",
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-request-id",
            },
        )
        assert asked.status_code == 200  # a preflight carries no key
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in asked.headers["access-control-allow-headers"]
        for path, status in (("/v1/models", 200), ("/nowhere", 404)):
            reply = await client.get(path, headers={"Origin": PAGE, **KEY})
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, PAGE)
        refused = await client.get("/v1/models", headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
        events = await client.post(
            "/v1/audio/transcriptions",
            files={"file": b"x"},
            data={"stream": "true"},
            headers={"Origin": PAGE, **KEY},
        )
        assert events.headers["content-type"].startswith("text/event-stream")
        assert events.headers["access-control-allow-origin"] == PAGE
        foreign = await client.get("/v1/models", headers={"Origin": FOREIGN, **KEY})
        assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://test:81", "http://test.evil.example", ""])
async def test_where_no_key_is_asked_for_a_foreign_page_may_do_nothing(
    make_app: MakeApp, origin: str
) -> None:
    """A form of any page could be sent here, though its answer could not be read."""
    async with talking(make_app()) as client:
        reply = await client.post("/v1/transcriptions", content=b"x", headers={"Origin": origin})
        assert reply.status_code == 403
        assert "server.cors_origins" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://test"}, {"Origin": "http://TEST:80"}, {"Origin": PAGE}]
)
async def test_programs_and_our_own_pages_may(make_app: MakeApp, headers: dict[str, str]) -> None:
    async with talking(make_app(cors_origins=(PAGE,))) as client:
        assert (await client.post("/v1/transcriptions", content=b"x", headers=headers)).status_code == 200


@pytest.fixture
def echoing(make_app: MakeApp) -> Iterator[Callable[..., LiveServer]]:
    async def echo(socket: Socket) -> None:
        await socket.accept()
        await socket.send_text(str(await socket.receive()))

    with contextlib.ExitStack() as stack:

        def serve(**config: Any) -> LiveServer:
            app = make_app(**config)
            open_socket(app, "/v1/echo", echo)
            return stack.enter_context(live_server(app))

        yield serve


@pytest.mark.parametrize("key", [None, "right-key"])
async def test_sockets_of_foreign_pages_are_refused_in_words(
    echoing: Callable[..., LiveServer], key: str | None
) -> None:
    server = echoing(cors_origins=(PAGE,), api_key=key)
    url = f"ws://{server.host}:{server.port}/v1/echo"
    headers = KEY if key else {}
    for origin in (None, PAGE, server.url):
        async with connect(url, origin=origin, additional_headers=headers) as talk:  # type: ignore[arg-type]
            await talk.send("here")
            assert await talk.recv() == "here"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, origin=FOREIGN, additional_headers=headers)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    assert b"server.cors_origins" in refused.value.response.body


# --- names -----------------------------------------------------------------------------------------

NAMED = {"allowed_hosts": ("speech.example", "*.inside.example")}
LOCAL = {"allowed_hosts": ("localhost", "*.localhost"), "any_address": True}


@pytest.mark.parametrize(
    ("config", "host", "status"),
    [
        ({}, "whatever", 200),
        (NAMED, "speech.example", 200),
        (NAMED, "SPEECH.example:8000", 200),
        (NAMED, "a.inside.example", 200),
        (NAMED, "inside.example", 400),
        (NAMED, "evilinside.example", 400),
        (NAMED, "speech.example.evil.example", 400),
        (NAMED, "speech.example@evil.example", 400),
        (NAMED, "127.0.0.1", 400),
        (NAMED, "", 400),
        (LOCAL, "localhost:8000", 200),
        (LOCAL, "127.0.0.1:8000", 200),
        (LOCAL, "[::1]:8000", 200),
        (LOCAL, "192.168.1.4", 200),
        (LOCAL, "rebound.example", 400),
        (LOCAL, "127.0.0.1.rebound.example", 400),
        (LOCAL, "[::1", 400),
    ],
)
async def test_the_server_answers_to_its_names(
    make_app: MakeApp, config: dict[str, Any], host: str, status: int
) -> None:
    async with talking(make_app(**config)) as client:
        for _ in range(2):  # a name that was found good is remembered
            reply = await client.get("/v1/models", headers={"Host": host})
            assert reply.status_code == status
            assert status == 200 or "server.allowed_hosts" in reply.json()["error"]["message"]
        # Balancers ask by address.
        assert (await client.get("/health/ready", headers={"Host": host})).status_code == 200


# --- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.1.2.3", "203.0.113.9", ("203.0.113.9", "https")),
        ("10.1.2.3", "6.6.6.6, 203.0.113.9, 10.9.9.9", ("203.0.113.9", "https")),
        ("198.51.100.1", "203.0.113.9", ("198.51.100.1", "http")),
    ],
)
async def test_only_trusted_proxies_are_believed(
    make_app: MakeApp, peer: str, forwarded: str, seen: tuple[str, str]
) -> None:
    app = make_app(trusted_proxies=("10.0.0.1/8",))

    async def told(scope: Any, receive: Any, send: Any) -> None:
        app.state.seen = (scope["client"][0], scope["scheme"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app.mount("/who", told)
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
    async with talking(app, peer=peer) as client:
        reply = await client.get("/who/am-i", headers=headers)
    assert app.state.seen == seen
    assert ("strict-transport-security" in reply.headers) is (seen[1] == "https")


async def test_by_default_nobody_is_believed(make_app: MakeApp) -> None:
    async with talking(make_app(), peer="127.0.0.1") as client:
        reply = await client.get("/health/live", headers={"X-Forwarded-Proto": "https"})
    assert "strict-transport-security" not in reply.headers


# --- bodies, headers, connections ------------------------------------------------------------------


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65_536


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
async def test_a_body_that_is_no_upload_has_an_end(make_app: MakeApp, content_type: str | None) -> None:
    """Where the route reads it, it says how much it takes; the upload beside it takes more."""
    app = make_app(max_body_bytes=100_000, max_upload_bytes=5_000_000)

    @app.post("/v1/things")
    async def things(thing: dict[str, Any]) -> dict[str, Any]:
        return thing

    headers = {} if content_type is None else {"Content-Type": content_type}
    async with talking(app) as client:
        for body in (endless(), b" " * 100_001):
            reply = await client.post("/v1/things", content=body, headers=headers)
            assert reply.status_code == 413
            assert "100,000 bytes" in reply.json()["error"]["message"]
        assert (await client.post("/v1/things", json={"a": "b" * 90_000})).status_code == 200
        assert (await client.post("/v1/transcriptions", content=bytes(4_000_000))).status_code == 200


def converse(server: LiveServer, *pieces: bytes, until: bytes = b"") -> bytes:
    """All that is answered until the server hangs up, or until something is said."""
    with socket.create_connection((server.host, server.port), 30) as conn:
        for piece in pieces:
            conn.sendall(piece)
        told = b""
        with contextlib.suppress(ConnectionResetError):
            while (more := conn.recv(65_536)) and not (until and until in told + more):
                told += more
            told += more
        return told


POST = b"POST /v1/transcriptions HTTP/1.1\r\nHost: test\r\n"
AMBIGUOUS = {
    "two kinds of length": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length with a sign": POST + b"Content-Length: +1\r\n\r\nx",
    "chunks within something": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an encoding nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a name with a space": POST + b"Content-Length : 1\r\n\r\nx",
    "a folded line": POST + b"X: a\r\n Content-Length: 1\r\n\r\nx",
    "a zero byte": POST + b"X: a\x00b\r\n\r\n",
    "bare line ends": POST.replace(b"\r\n", b"\n") + b"\n",
    "a chunk below nothing": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    "a chunk beyond all numbers": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 17 + b"\r\nx\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_two_readers_could_read_differently_ends_the_connection(
    serve: Callable[..., LiveServer], name: str
) -> None:
    """A proxy in front may see another end of the request than we do."""
    server = serve()
    after = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"
    told = converse(server, AMBIGUOUS[name] + after)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b'"ok"' not in told


async def test_a_request_with_two_hosts_is_for_neither(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v1/models", headers=[("Host", "test"), ("Host", "other")])
    assert reply.status_code == 400


def test_a_body_that_trickles_is_given_up(serve: Callable[..., LiveServer]) -> None:
    server = serve(upload_idle_s=0.2)
    head = b"POST /v1/transcriptions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    assert b" 422 " in converse(server, head + b"Content-Length: 50\r\n\r\n{", until=b"took longer than")


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    lost = threading.Event()

    class Impatient(BoundedHeadProtocol):
        limits = ConnectionLimits(unread_s=0.3)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 << 20)})

    with live_server(app, http=Impatient) as server, socket.socket() as conn:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.connect((server.host, server.port))
        conn.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert lost.wait(30)


def test_an_answer_that_is_read_slowly_arrives() -> None:
    class Impatient(BoundedHeadProtocol):
        limits = ConnectionLimits(unread_s=0.2)

    size = 24 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})

    with live_server(app, http=Impatient) as server, socket.socket() as conn:
        conn.connect((server.host, server.port))
        conn.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        taken = 0
        began = time.monotonic()
        while more := conn.recv(1 << 20):
            taken += len(more)
            time.sleep(0.02)  # the client's own slowness is what is tried here
        assert taken > size
        assert time.monotonic() - began > 2 * Impatient.limits.unread_s


def test_headers_beyond_the_limit_are_told_so(make_app: MakeApp) -> None:
    class Narrow(BoundedHeadProtocol):
        limits = ConnectionLimits(head_bytes=10_000)

    with live_server(make_app(), http=Narrow) as server:
        line = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
        assert b" 431 " in converse(server, line, b"X: " + b"y" * 20_000)
        assert b"10,000 bytes" in converse(server, line, b"X: " + b"y" * 20_000)
        assert b" 200 " in converse(server, line + b"X: " + b"y" * 5_000 + b"\r\n\r\n", until=b"ok")


def test_connections_beyond_the_limit_are_told_to_come_back(make_app: MakeApp) -> None:
    turned_away: list[int] = []

    class Few(BoundedHeadProtocol):
        limits = ConnectionLimits(connections=2, on_full=lambda: turned_away.append(1))

    with live_server(make_app(), http=Few) as server:
        ask = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                held = stack.enter_context(socket.create_connection((server.host, server.port), 30))
                held.sendall(ask)
                assert b" 200 " in held.recv(65_536)
            told = converse(server)
            assert b" 503 " in told
            assert b"retry-after: 1" in told
        assert turned_away == [1]

        def let_in() -> bool:
            return b" 200 " in converse(server, ask, until=b"ok")

        deadline = time.monotonic() + 30
        while not let_in():
            assert time.monotonic() < deadline


async def test_what_stands_around_the_routes_is_in_their_description(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"401", "403", "413", "422", "429", "503"} <= set(paths["/v1/transcriptions"]["post"]["responses"])
    openai = paths["/v1/audio/transcriptions"]["post"]["responses"]
    assert {"400", "401", "403", "413", "429", "503"} <= set(openai)
    assert openai["403"]["content"] == openai["401"]["content"]
    assert openai["403"]["content"] != paths["/v1/transcriptions"]["post"]["responses"]["403"]["content"]
    assert "413" not in paths["/v1/models"]["get"]["responses"]
    assert set(paths["/health/live"]["get"]["responses"]) == {"200"}
