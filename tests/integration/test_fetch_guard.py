"""Fetching by URL against real local servers: what arrives, what is refused, and where nothing connects."""

# ruff: noqa: ASYNC240 - a test may wait for the disk

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpcore
import pytest

from voiceforge.errors import DeadlineExceeded, UploadTooLarge, UpstreamFailed, UrlRefused, VoiceForgeError
from voiceforge.infra.fetch.guard import check_destination, check_url, is_public
from voiceforge.infra.fetch.http import HttpFetcher

BODY = bytes(range(256)) * 400
PUBLIC = "93.184.215.14"

Handler = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that gives each request's head to `handler`; yields its `host:port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await handler(head.decode(), writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


def reply(body: bytes = BODY, status: int = 200, **headers: str) -> Handler:
    async def handler(head: str, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X"]
        if "Content_Length" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return handler


@dataclass
class Network(httpcore.AsyncNetworkBackend):
    """Connects for real, but to the local server that stands for a public address; remembers it all."""

    public: dict[tuple[str, int], int] = field(default_factory=dict)  # (address, port) -> local port
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        local = self.public.get((host, port))
        if local is None:
            raise httpcore.ConnectError("nobody there")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", local, timeout)


@dataclass
class Names:
    """A resolver: each name's answers in turn, the last one for ever."""

    answers: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror("no such name")
        row = self.answers[host]
        return row.pop(0) if len(row) > 1 else row[0]


def port_of(server: str) -> int:
    return int(server.rpartition(":")[2])


def fetcher(*allow: str, **settings: object) -> HttpFetcher:
    return HttpFetcher(**{"max_bytes": 1_000_000, "allow_hosts": allow, **settings})  # type: ignore[arg-type]


async def refused(fetch: HttpFetcher, url: str, target: Path, error: type[VoiceForgeError]) -> str:
    """The message; and nothing is left on disk."""
    with pytest.raises(error) as caught:
        await fetch.fetch(url, target)
    assert not target.exists()
    assert caught.value.field == "url"
    return caught.value.message


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "arriving"


async def test_what_arrives_lies_in_the_target(target: Path) -> None:
    heads: list[str] = []

    async def handler(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        await reply(Content_Type="audio/wav")(head, writer)

    async with serving(handler) as server:
        fetched = await fetcher(server).fetch(f"http://{server}/a%20b.wav?sig=x%2Fy", target)
    assert target.read_bytes() == BODY
    assert (fetched.size_bytes, fetched.content_type) == (len(BODY), "audio/wav")
    assert fetched.final_url_host == "127.0.0.1"
    assert heads[0].startswith("GET /a%20b.wav?sig=x%2Fy HTTP/1.1\r\n")
    assert f"\r\nHost: {server}\r\n" in heads[0]
    assert "\r\nAccept-Encoding: identity\r\n" in heads[0]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "audio.wav",
        "//example.com/a",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/",
        "data:audio/wav;base64,AAAA",
        "http://",
        "http:///etc",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://example.com\\@127.0.0.1/",
        "http://exam ple.com/",
        "http://example.com/\r\nX-Injected: 1",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://" + "a" * 9000 + ".com/",
    ],
)
def test_urls_that_are_not_fetched(url: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        check_url(url)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "url", ["https://example.com", "HTTP://Example.com:8080/a?b#c", "http://exämple.com/é"]
)
def test_urls_that_are_fetched(url: str) -> None:
    assert check_url(url).scheme in ("http", "https")


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::6810:84e5", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "192.0.2.1",
        "198.18.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2002:7f00:1::",
        "2002:808:808::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "example.com",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]", "0"]
)
async def test_our_own_machine_is_refused_however_it_is_written(host: str, target: Path) -> None:
    """With the system's own resolver, which reads all of these."""
    reached: list[str] = []

    async def handler(head: str, writer: asyncio.StreamWriter) -> None:
        reached.append(head)

    async with serving(handler) as server:
        with pytest.raises((UrlRefused, UpstreamFailed)):  # some systems do not read the oldest notations
            await fetcher().fetch(f"http://{host}:{port_of(server)}/", target)
    assert reached == []
    assert not target.exists()


async def test_allowed_hosts_are_exact(target: Path) -> None:
    async with serving(reply()) as server:
        url = f"http://{server}/"
        await fetcher("127.0.0.1").fetch(url, target)
        target.unlink()
        for other in ("127.0.0.1:1", "127.0.0", "0.0.1", "localhost"):
            assert "public internet" in await refused(fetcher(other), url, target, UrlRefused)


async def test_every_hop_is_judged_and_connects_to_the_judged_address(target: Path) -> None:
    async with (
        serving(reply()) as last,
        serving(reply(b"", 302, Location="http://b.test/there")) as first,
    ):
        names = Names({"a.test": [[PUBLIC]], "b.test": [["8.8.8.8"]]})
        network = Network({(PUBLIC, 80): port_of(first), ("8.8.8.8", 80): port_of(last)})
        fetched = await fetcher(resolver=names, network=network).fetch("http://a.test/", target)
    assert fetched.final_url_host == "b.test"
    assert target.read_bytes() == BODY
    assert names.asked == ["a.test", "b.test"]
    assert network.asked == [(PUBLIC, 80), ("8.8.8.8", 80)]


async def test_also_a_redirect_to_the_same_place_is_judged_again(target: Path) -> None:
    """DNS rebinding: the first answer is public, the second is not."""
    async with serving(reply(b"", 307, Location="/again")) as server:
        names = Names({"a.test": [[PUBLIC], ["127.0.0.1"]]})
        network = Network({(PUBLIC, 80): port_of(server)})
        await refused(fetcher(resolver=names, network=network), "http://a.test/", target, UrlRefused)
    assert names.asked == ["a.test", "a.test"]
    assert network.asked == [(PUBLIC, 80)]


async def test_a_name_that_was_public_when_it_was_submitted_is_judged_again_when_it_is_fetched(
    target: Path,
) -> None:
    """DNS rebinding, with all the time a job waits in between."""
    names, network = Names({"a.test": [[PUBLIC], ["169.254.169.254"]]}), Network()
    await check_destination("http://a.test/", resolver=names)
    await refused(fetcher(resolver=names, network=network), "http://a.test/", target, UrlRefused)
    assert names.asked == ["a.test", "a.test"]
    assert network.asked == []


async def test_a_name_that_mixes_addresses_is_refused(target: Path) -> None:
    names, network = Names({"a.test": [[PUBLIC, "10.0.0.1"]]}), Network()
    await refused(fetcher(resolver=names, network=network), "http://a.test/", target, UrlRefused)
    assert network.asked == []


async def test_the_next_address_is_tried_where_one_is_dead(target: Path) -> None:
    async with serving(reply()) as server:
        names = Names({"a.test": [[PUBLIC, "8.8.8.8"]]})
        network = Network({("8.8.8.8", 80): port_of(server)})
        await fetcher(resolver=names, network=network).fetch("http://a.test/", target)
    assert network.asked == [(PUBLIC, 80), ("8.8.8.8", 80)]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/",
        "http://[::ffff:127.0.0.1]/",
        "file:///etc/passwd",
        "http://u:p@a.test/",
        "http://[",
    ],
)
async def test_redirects_to_where_we_do_not_go(location: str, target: Path) -> None:
    async with serving(reply(b"", 302, Location=location)) as server:
        await refused(fetcher(server), f"http://{server}/", target, UrlRefused)


async def test_redirects_have_an_end(target: Path) -> None:
    asked: list[str] = []

    async def handler(head: str, writer: asyncio.StreamWriter) -> None:
        asked.append(head)
        await reply(b"", 302, Location="/again")(head, writer)

    async with serving(handler) as server:
        message = await refused(fetcher(server, max_redirects=3), f"http://{server}/", target, UrlRefused)
    assert "3 times" in message
    assert len(asked) == 4


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 500, 503])
async def test_other_answers_are_the_servers_failure(status: int, target: Path) -> None:
    async with serving(reply(b"", status)) as server:
        assert str(status) in await refused(fetcher(server), f"http://{server}/", target, UpstreamFailed)


async def test_a_redirect_to_nowhere(target: Path) -> None:
    async with serving(reply(b"", 302)) as server:
        await refused(fetcher(server), f"http://{server}/", target, UpstreamFailed)


async def test_too_large_by_its_own_word_is_not_begun(target: Path) -> None:
    async with serving(reply(b"x", Content_Length="2000000")) as server:
        await refused(fetcher(server), f"http://{server}/", target, UploadTooLarge)


async def test_too_large_is_noticed_while_it_arrives(target: Path) -> None:
    sent = 0

    async def endless(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while sent < 200_000_000:
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with serving(endless) as server:
        await refused(fetcher(server), f"http://{server}/", target, UploadTooLarge)
    assert sent < 100_000_000


async def test_a_compression_bomb_is_counted_unpacked(target: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    async with serving(reply(bomb, Content_Encoding="gzip")) as server:
        await refused(fetcher(server), f"http://{server}/", target, UploadTooLarge)


async def test_compression_against_our_wish_is_undone(target: Path) -> None:
    async with serving(reply(gzip.compress(BODY), Content_Encoding="gzip")) as server:
        fetched = await fetcher(server).fetch(f"http://{server}/", target)
    assert target.read_bytes() == BODY
    assert fetched.size_bytes == len(BODY)


@pytest.mark.parametrize(
    ("body", "encoding"), [(gzip.compress(BODY)[:-50], "gzip"), (b"not gzip", "gzip"), (BODY, "br")]
)
async def test_damaged_or_unknown_compression(body: bytes, encoding: str, target: Path) -> None:
    async with serving(reply(body, Content_Encoding=encoding)) as server:
        await refused(fetcher(server), f"http://{server}/", target, UpstreamFailed)


async def test_a_body_that_ends_early(target: Path) -> None:
    async with serving(reply(BODY, Content_Length=str(len(BODY) + 1))) as server:
        await refused(fetcher(server), f"http://{server}/", target, UpstreamFailed)


async def test_a_server_that_speaks_something_else(target: Path) -> None:
    async def banner(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")

    async with serving(banner) as server:
        await refused(fetcher(server), f"http://{server}/", target, UpstreamFailed)


async def test_silence_is_not_waited_out(target: Path) -> None:
    async def silent(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        await writer.drain()
        await asyncio.sleep(60)

    async with serving(silent) as server:
        message = await refused(
            fetcher(server, silence_s=0.1, timeout_s=50), f"http://{server}/", target, DeadlineExceeded
        )
    assert "silent" in message


async def test_drops_now_and_then_do_not_get_round_the_time_limit(target: Path) -> None:
    async def trickle(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100_000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(trickle) as server:
        message = await refused(
            fetcher(server, silence_s=50, timeout_s=0.3), f"http://{server}/", target, DeadlineExceeded
        )
    assert "0.3 seconds" in message


async def test_a_cancelled_fetch_leaves_nothing(target: Path) -> None:
    begun = asyncio.Event()

    async def stuck(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        begun.set()
        await asyncio.sleep(60)

    async with serving(stuck) as server:
        task = asyncio.create_task(fetcher(server).fetch(f"http://{server}/", target))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not target.exists()


async def test_names_and_ports_without_a_server(target: Path) -> None:
    names = Names({"dead.test": [[PUBLIC]], "empty.test": [[]]})
    fetch = fetcher(resolver=names, network=Network())
    for host in ("dead.test", "empty.test", "unknown.test"):
        assert host in await refused(fetch, f"http://{host}/", target, UpstreamFailed)


async def test_proxies_of_the_environment_are_not_used(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(reply(b"from the proxy")) as proxy, serving(reply()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy}")
        await fetcher(server).fetch(f"http://{server}/", target)
    assert target.read_bytes() == BODY


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_tls_is_verified_for_the_name_though_the_connection_goes_to_an_address(
    target: Path, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=a.test", "-addext", "subjectAltName=DNS:a.test", "-days", "2"]
    await asyncio.to_thread(
        subprocess.run, [*make, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    greeted: list[str | None] = []
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    server_side.sni_callback = lambda _socket, name, _context: greeted.append(name)

    async with serving(reply(), server_side) as server:
        settings = {
            "resolver": Names({"a.test": [[PUBLIC]], "b.test": [[PUBLIC]]}),
            "network": Network({(PUBLIC, 443): port_of(server)}),
        }
        trusting = fetcher(**settings, ssl_context=lambda: ssl.create_default_context(cafile=certificate))
        fetched = await trusting.fetch("https://a.test/", target)
        assert fetched.final_url_host == "a.test"
        assert target.read_bytes() == BODY
        assert greeted == ["a.test"]

        await refused(trusting, "https://b.test/", target, UpstreamFailed)
        await refused(fetcher(**settings), "https://a.test/", target, UpstreamFailed)
