"""TLS of what listens: certificates from files, taken up again when the files change.

Each process looks at the files itself. What it makes of them is one `SSLContext` after the other: a
connection keeps the one it began with.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voiceforge.errors import ConfigurationError
from voiceforge.main.settings import Settings
from voiceforge.telemetry.logger import Logger

_LOOK_EVERY_S = 2.0
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_log = Logger(__name__)

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    certificate: with the chain to its root. key: None where it stands in the same file.
    client_ca: roots of clients' certificates; None: clients are not asked for one.
    """

    certificate: Path
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    client_ca: Path | None = None
    client_required: bool = True
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    def context(self) -> ssl.SSLContext:
        """Blocks.

        Raises:
            ConfigurationError: a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.min_version
        context.options |= ssl.OP_NO_RENEGOTIATION
        # Never None: OpenSSL would ask whoever sits at the terminal.
        password = self.key_password or ""
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: password)
        except (OSError, ValueError) as error:
            raise ConfigurationError([self._chain_problem(error)]) from None
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if self.client_required else ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise ConfigurationError([_problem("server.tls_client_ca", self.client_ca, error)]) from None
        return context

    def _chain_problem(self, error: OSError | ValueError) -> str:
        """What is wrong is not said of a file; which one it is, is found by reading them."""
        reason = getattr(error, "reason", "") or ""
        for name, path in (("server.tls_certificate", self.certificate), ("server.tls_key", self.key)):
            if path is not None and (unreadable := _unreadable(path)) is not None:
                return _problem(name, path, unreadable)
        if reason == "KEY_VALUES_MISMATCH":
            return "server.tls_key: does not belong to server.tls_certificate"
        if b"ENCRYPTED" in (self.key or self.certificate).read_bytes():
            return "server.tls_key: cannot be opened with server.tls_key_password"
        return f"server.tls_certificate, server.tls_key: cannot be used: {_words(error)}"

    def stamp(self) -> _Stamp:
        """Another one, where a file is another than before. Blocks."""
        return tuple(_stamp_of(path) for path in self._paths())

    def _paths(self) -> Sequence[Path]:
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


def _unreadable(path: Path) -> OSError | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error


def _problem(name: str, path: Path, error: OSError) -> str:
    return f"{name}: {path} cannot be used: {_words(error)}"


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            "it is not what it should be in PEM"
            if not error.reason
            else error.reason.lower().replace("_", " ")
        )
    return getattr(error, "strerror", None) or str(error)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def tls_files(settings: Settings) -> TlsFiles | None:
    """None where there is no TLS."""
    server = settings.server
    if server.tls_certificate is None:
        return None
    password = server.tls_key_password
    return TlsFiles(
        certificate=server.tls_certificate,
        key=server.tls_key,
        key_password=None if password is None else password.get_secret_value(),
        client_ca=server.tls_client_ca,
        client_required=server.tls_client_certificates == "required",
        min_version=_VERSIONS[server.tls_min_version],
    )


class Tls:
    """The certificates in force. Made blocking; then it belongs to one event loop.

    Raises:
        ConfigurationError: see `TlsFiles.context`.
    """

    def __init__(self, files: TlsFiles, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._files = files
        self._look_every_s = look_every_s
        self._stamp = files.stamp()  # before they are read: what changes meanwhile is seen at the next look
        self._asked = asyncio.Event()
        self.context = files.context()

    def look_now(self) -> None:
        """Read the files, changed or not, as soon as `keep` gets to it."""
        self._asked.set()

    async def keep(self, take_up: Callable[[ssl.SSLContext], Awaitable[None]]) -> None:
        """Until cancelled: tell of every new context. Files that cannot be used leave the present one in
        force."""
        while True:
            try:
                async with asyncio.timeout(self._look_every_s):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked = self._asked.is_set()
            self._asked.clear()
            stamp = await asyncio.to_thread(self._files.stamp)
            if stamp == self._stamp and not asked:
                continue
            self._stamp = stamp
            try:
                self.context = await asyncio.to_thread(self._files.context)
            except ConfigurationError as error:
                _log.error("tls_files_refused", problem=error.message, kept="the certificate before")
                continue
            await take_up(self.context)
            _log.info("tls_files_taken_up")
