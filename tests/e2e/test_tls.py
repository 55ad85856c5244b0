"""`voiceforge serve` with certificates: who gets in, and what becomes of new files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import trustme
from websockets.sync.client import connect

Start = Callable[..., subprocess.Popen[str]]
PATIENCE_S = 60


class Papers:
    """Certificates of a server and its clients, in files."""

    def __init__(self, folder: Path) -> None:
        self.server_ca = trustme.CA()
        self.client_ca = trustme.CA()
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.clients = folder / "clients.pem"
        self.issue()
        self.client_ca.cert_pem.write_to_path(str(self.clients))
        self._client = self._written(folder / "client.pem", self.client_ca.issue_cert("a-client"))
        self._stranger = self._written(folder / "stranger.pem", trustme.CA().issue_cert("a-client"))

    def issue(self) -> None:
        """Another certificate for the same name."""
        issued = self.server_ca.issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(str(self.key))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))

    @staticmethod
    def _written(path: Path, issued: trustme.LeafCert) -> Path:
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def client(self, *, certificate: str | None = None) -> ssl.SSLContext:
        """certificate: "ours", or "stranger" from a root that the server does not know."""
        context = ssl.create_default_context()
        self.server_ca.configure_trust(context)
        if certificate is not None:
            context.load_cert_chain(self._client if certificate == "ours" else self._stranger)
        return context

    def settings(self, **more: str) -> dict[str, str]:
        return {
            "VOICEFORGE_SERVER__TLS_CERTIFICATE": str(self.certificate),
            "VOICEFORGE_SERVER__TLS_KEY": str(self.key),
            "VOICEFORGE_LOG__FORMAT": "json",
            **{f"VOICEFORGE_{name}": value for name, value in more.items()},
        }


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def announced(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge listens on https://127.0.0.1:"), line
    return int(line.split()[3].rpartition(":")[2])


def live(port: int, context: ssl.SSLContext) -> int:
    return httpx.get(f"https://127.0.0.1:{port}/health/live", verify=context, timeout=30).status_code


def serial(port: int, context: ssl.SSLContext) -> str:
    """Of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        found = secured.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def turned_away(port: int, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 a client hears of it only when it reads."""
    try:
        live(port, context)
    except (httpx.TransportError, ssl.SSLError, ConnectionError):
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def events(log: Path) -> list[str]:
    return [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]


def test_only_clients_with_a_certificate_get_in_and_new_files_are_taken_up(
    start: Start, papers: Papers, tmp_path: Path, clips: dict[str, Path]
) -> None:
    process = start(
        "serve",
        "--port",
        "0",
        settings=papers.settings(
            SERVER__TLS_CLIENT_CA=str(papers.clients), WYOMING__ENABLED="true", WYOMING__TLS="true",
            WYOMING__PORT="0",
        ),
    )  # fmt: skip
    port = announced(process)
    assert process.stdout is not None
    wyoming = int(process.stdout.readline().rpartition(":")[2])
    ours = papers.client(certificate="ours")
    assert live(port, ours) == 200
    assert turned_away(port, papers.client())
    assert turned_away(port, papers.client(certificate="stranger"))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/health/live")

    answer = httpx.post(
        f"https://127.0.0.1:{port}/v1/transcriptions",
        content=clips["beckett"].read_bytes(),
        verify=ours,
        timeout=200,
    )
    assert answer.status_code == 200, answer.text
    with (
        socket.create_connection(("127.0.0.1", wyoming), 30) as plain,
        ours.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b'{"type": "describe"}\n')
        assert b'"info"' in secured.recv(4096)

    with (
        httpx.Client(verify=ours, timeout=30) as kept,
        connect(f"wss://127.0.0.1:{port}/v1/stream", ssl=ours) as stream,
    ):
        assert kept.get(f"https://127.0.0.1:{port}/health/live").status_code == 200
        before = serial(port, ours)
        papers.issue()
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: serial(port, ours) != before)
        assert serial(wyoming, ours) == serial(port, ours)
        # Open connections go on as they began.
        assert kept.get(f"https://127.0.0.1:{port}/health/live").status_code == 200
        stream.send(json.dumps({"type": "close"}))
        assert stream.recv(timeout=30)

    good = serial(port, ours)
    papers.certificate.write_text("not a certificate")
    log = tmp_path / "stderr-0"
    wait_until(lambda: "tls_files_refused" in events(log))
    assert serial(port, ours) == good
    papers.issue()  # seen without a signal
    wait_until(lambda: serial(port, ours) != good)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    refused = [line for line in log.read_text().splitlines() if "tls_files_refused" in line]
    assert "server.tls_certificate" in refused[0]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "voiceforge.main.http_worker" in child.cmdline():
                found.append(child)
    return found


def test_every_worker_takes_up_new_files(start: Start, papers: Papers, tmp_path: Path) -> None:
    process = start(
        "serve", "--port", "0", "--workers", "2",
        settings=papers.settings(
            SERVER__TLS_CLIENT_CA=str(papers.clients), SERVER__TLS_CLIENT_CERTIFICATES="optional"
        ),
    )  # fmt: skip
    port = announced(process)
    anyone = papers.client()
    assert live(port, anyone) == 200
    assert live(port, papers.client(certificate="ours")) == 200
    assert turned_away(port, papers.client(certificate="stranger"))
    before = serial(port, anyone)
    # Clients of another root from now on, too.
    other = trustme.CA()
    other.cert_pem.write_to_path(str(papers.clients))
    papers.issue()
    os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: before not in {serial(port, anyone) for _ in range(30)})
    assert all(turned_away(port, papers.client(certificate="ours")) for _ in range(10))

    # One that is started anew while the files are broken waits; the other goes on with what it has.
    papers.certificate.write_text("not a certificate")
    victim = workers(process)[0]
    victim.kill()
    wait_until(lambda: events(tmp_path / "stderr-0").count("worker started") == 3)
    wait_until(lambda: "the door closed" in (tmp_path / "stderr-0").read_text())
    assert all(live(port, anyone) == 200 for _ in range(10))
    before = serial(port, anyone)
    papers.issue()
    wait_until(lambda: before not in {serial(port, anyone) for _ in range(30)})
    assert len(workers(process)) == 2
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_files_that_cannot_be_used_are_named_before_anything_starts(
    voiceforge: Callable[..., subprocess.CompletedProcess[str]], papers: Papers
) -> None:
    papers.key.unlink()
    ended = voiceforge("serve", "--port", "0", settings=papers.settings())
    assert ended.returncode != 0
    assert "server.tls_key" in ended.stderr
    assert "Traceback" not in ended.stderr
