"""WebSockets of any surface, by a client of another house, over real sockets."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voiceforge.api.http.auth import Authenticate, SurfaceKeys
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.protocol import BoundedHeadProtocol, ConnectionLimits
from voiceforge.api.http.sockets import Socket, SocketGone, SocketLimits, open_socket
from voiceforge.api.native.errors import NativeErrors
from voiceforge.errors import Overloaded
from voiceforge.services.access import OWNER
from voiceforge.services.authentication import Authentication
from voiceforge.services.container import Services
from voiceforge.services.short_tokens import REALTIME
from voiceforge.testing.live_server import live_server


class Echo:
    """Says everything back; some words have a meaning."""

    def __init__(self) -> None:
        self.gone: list[int] = []
        self.left = asyncio.Event()

    async def __call__(self, socket: Socket) -> None:
        if "full" in socket.query:
            raise Overloaded("there are too many", retry_after_s=7.0)
        await socket.accept(subprotocol=next(iter(socket.subprotocols), None))
        try:
            while (message := await socket.receive()) != "bye":
                if message == "break":
                    raise RuntimeError("a secret")
                if message == "talk":
                    while True:
                        await socket.send_bytes(bytes(64 * 1024))
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_text(message)
            await socket.close(1013, "ü" * 100)
        except SocketGone as gone:
            self.gone.append(gone.code)
            raise


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def base(make_app: Callable[..., FastAPI], echo: Echo) -> Iterator[str]:
    app = make_app(api_key="right-key")
    open_socket(app, "/v1/echo/{name}", echo, SocketLimits(send_s=0.2))
    with live_server(app, max_frame_bytes=1000) as server:
        yield server.url.replace("http", "ws")


def open_echo(base: str, path: str = "/v1/echo/x", **more: Any) -> connect:
    return connect(base + path, additional_headers={"Authorization": "Token right-key"}, **more)


async def refusal(opening: connect) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        await opening
    return caught.value


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Token wrong", "Basic right-key"])
async def test_a_wrong_key_is_answered_before_the_handshake(
    base: str, key: str | None, log_lines: list[dict[str, Any]]
) -> None:
    headers = {"Authorization": key} if key else {}
    refused = await refusal(connect(base + "/v1/echo/x", additional_headers=headers))
    assert refused.response.status_code == 401
    assert json.loads(refused.response.body)["error"]["code"] == "invalid_api_key"
    assert refused.response.headers["X-Request-ID"]
    assert not [line for line in log_lines if line["level"] in ("warning", "error")]


@pytest.mark.parametrize("key", [f"{scheme} right-key" for scheme in ("Bearer", "bearer", "Token", "token")])
async def test_a_right_key_is_let_in(base: str, key: str) -> None:
    async with connect(base + "/v1/echo/x", additional_headers={"Authorization": key}) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(b"\0\xff")
        assert await socket.recv() == b"\0\xff"
        assert socket.response is not None
        assert socket.response.headers["X-Request-ID"]


async def test_what_a_surface_raises_before_the_handshake_is_told_in_its_words(base: str) -> None:
    refused = await refusal(open_echo(base, "/v1/echo/x?full"))
    assert refused.response.status_code == 429
    assert refused.response.headers["Retry-After"] == "7"
    assert json.loads(refused.response.body)["error"]["code"] == "overloaded"


async def test_where_nothing_is_http_says_so(base: str) -> None:
    assert (await refusal(open_echo(base, "/v1/nowhere"))).response.status_code == 404


async def test_a_surface_says_goodbye_with_its_own_code(base: str) -> None:
    async with open_echo(base) as socket:
        await socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    assert closed.value.rcvd.reason == "ü" * 61  # as much as a close frame holds


async def test_what_breaks_inside_closes_with_1011_and_tells_nothing(base: str) -> None:
    async with open_echo(base) as socket:
        await socket.send("break")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "")


async def test_a_message_beyond_the_limit_ends_the_connection(base: str) -> None:
    async with open_echo(base) as socket:
        await socket.send(bytes(1000))
        assert len(await socket.recv()) == 1000
        await socket.send(bytes(1001))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_many_small_messages_come_back_in_order(base: str) -> None:
    async def send(socket: ClientConnection) -> None:
        for number in range(2000):
            await socket.send(str(number))

    async with open_echo(base) as socket, asyncio.TaskGroup() as group:
        group.create_task(send(socket))
        assert [await socket.recv() for _ in range(2000)] == [str(number) for number in range(2000)]


async def test_a_client_that_never_reads_is_given_up(base: str, echo: Echo, services: Services) -> None:
    async with open_echo(base, max_queue=1) as socket:
        await socket.send("talk")
        async with asyncio.timeout(10):
            while not echo.gone:  # noqa: ASYNC110 - it happens in the server's thread
                await asyncio.sleep(0.01)
        assert echo.gone == [1006]
        socket.transport.abort()  # or closing would wait for what is not coming


async def test_a_socket_counts_as_one_request_without_a_duration(base: str, services: Services) -> None:
    async with open_echo(base) as socket:
        await socket.send("bye")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    labels = {"route": "/v1/echo/{name}", "method": "WEBSOCKET", "status": "101"}
    async with asyncio.timeout(10):
        while services.metrics.total("requests", **labels) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    exposed = services.metrics.exposition()[0].decode()
    assert 'voiceforge_request_duration_seconds_count{method="WEBSOCKET",route="/v1/echo/{name}"' in exposed
    counted = [line for line in exposed.splitlines() if "duration_seconds_count" in line and "WEBS" in line]
    assert [float(line.split()[-1]) for line in counted] == [0.0]


async def test_a_browser_brings_its_key_as_a_subprotocol(echo: Echo) -> None:
    app = FastAPI()
    open_socket(app, "/echo", echo)
    surface = SurfaceKeys(
        covers=lambda path: path == "/echo",
        in_subprotocols=lambda offered: [p.removeprefix("key.") for p in offered if p.startswith("key.")],
        realtime=True,
    )
    authentication = Authentication("right-key")
    lent = authentication.short_tokens.make(OWNER, 60, prefix=REALTIME).value
    guarded = Authenticate(app, authentication, ErrorReplies((NativeErrors(),)), (surface,))
    with live_server(guarded) as server:
        address = server.url.replace("http", "ws") + "/echo"
        for key in ("right-key", lent):
            async with connect(address, subprotocols=["talk", f"key.{key}"]) as socket:  # type: ignore[list-item]
                assert socket.subprotocol == "talk"
        refused = await refusal(connect(address, subprotocols=["talk", "key.wrong"]))  # type: ignore[list-item]
        assert refused.response.status_code == 401


class Hasty(BoundedHeadProtocol):
    limits = ConnectionLimits(head_s=0.2)


@pytest.mark.parametrize("opening", [b"", b"GET /v1/echo/x HTTP/1.1\r\nHost: x\r\nUpg"])
async def test_who_never_finishes_to_open_a_connection_does_not_keep_it(
    make_app: Callable[..., FastAPI], opening: bytes
) -> None:
    with live_server(make_app(), http=Hasty) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(opening)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_an_open_socket_outlives_the_patience_for_headers(echo: Echo) -> None:
    app = FastAPI()
    open_socket(app, "/echo", echo)
    with live_server(app, http=Hasty) as server:
        async with connect(server.url.replace("http", "ws") + "/echo") as socket:
            await asyncio.sleep(0.4)
            await socket.send("still there")
            assert await socket.recv() == "still there"
