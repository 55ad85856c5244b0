"""The model hub over its plain HTTP API: what a repository holds, and its files, byte by byte verified.

A download goes on where the last one broke off. Nothing here knows folders' layout or what makes a
model installed; and no hub library is needed, except to learn its default address and token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote

from voiceforge.errors import DependencyMissing, ModelNotFound, PermissionDenied, UpstreamFailed

if TYPE_CHECKING:
    import httpx

RETRY_DELAYS_S = (1.0, 2.0, 5.0, 10.0)
"""Waits between attempts that brought nothing; an attempt that brought bytes starts over."""

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 30.0
WRITE_BYTES = 1 << 20
MAX_LISTING_BYTES = 16 << 20
_LONGEST_LICENCE = 100
PARTIAL_SUFFIX = ".partial"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HubFile:
    """sha256: of files in large-file storage; the others have only blob_sha1, git's own hash."""

    name: str
    size_bytes: int
    sha256: str | None
    blob_sha1: str | None

    @property
    def digest(self) -> str:
        return self.sha256 or self.blob_sha1 or ""

    def hasher(self) -> _Hash:
        if self.sha256:
            return hashlib.sha256()
        git = hashlib.sha1(usedforsecurity=False)
        git.update(b"blob %d\0" % self.size_bytes)
        return git


@dataclass(frozen=True, slots=True)
class HubSnapshot:
    """What a repository holds at one commit (40 hexadecimal digits). licence: what its page says."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class HubAddress:
    """endpoint: without a trailing slash. token: sent to that host only, never along a redirect to
    another one."""

    endpoint: str
    token: str | None = None


def default_address() -> HubAddress:
    """The public hub, or the mirror, and the login that the user's hub library is set up with.

    Raises:
        DependencyMissing: there is no hub library to ask.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise DependencyMissing(
            "pulling models needs the hub's library, pip install 'voiceforge[whisper]', "
            "or the address of a hub in the setting models.hub_endpoint"
        ) from error
    return HubAddress(constants.ENDPOINT.rstrip("/"), huggingface_hub.get_token())


class Hub:
    """One hub. Holds no connection between calls.

    Args:
        address: None: `default_address`, asked when first needed.
        retry_delays_s: see `RETRY_DELAYS_S`; its length bounds the attempts.
    """

    def __init__(
        self, address: HubAddress | None = None, *, retry_delays_s: Sequence[float] = RETRY_DELAYS_S
    ) -> None:
        self._address = address
        self._retry_delays_s = tuple(retry_delays_s)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[HubSession]:
        """Raises: DependencyMissing: see `default_address`."""
        import httpx

        address = self._address
        if address is None:
            address = await asyncio.to_thread(default_address)
        headers = {"User-Agent": "voiceforge", "Accept-Encoding": "identity"}
        if address.token:
            headers["Authorization"] = f"Bearer {address.token}"
        async with httpx.AsyncClient(
            base_url=address.endpoint,
            headers=headers,
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=True,  # large files live on other hosts; httpx drops the token on the way there
            max_redirects=5,
        ) as client:
            yield HubSession(client, self._retry_delays_s)


class HubSession:
    """An open line to the hub, from `Hub.connect`."""

    def __init__(self, client: httpx.AsyncClient, retry_delays_s: tuple[float, ...]) -> None:
        self._client = client
        self._retry_delays_s = retry_delays_s

    async def snapshot(self, repository: str, revision: str) -> HubSnapshot:
        """What `revision` (branch, tag or commit) means now.

        Raises:
            ModelNotFound, PermissionDenied, UpstreamFailed: see `ModelStore.pull`.
        """
        path = f"/api/models/{repository}/revision/{quote(revision, safe='')}"
        attempt = 0
        while True:
            try:
                return _snapshot(repository, revision, await self._listing(path, repository, revision))
            except _TryAgain as error:
                if attempt == len(self._retry_delays_s):
                    raise UpstreamFailed(f"the model hub could not be asked: {error}") from error
            await asyncio.sleep(self._retry_delays_s[attempt])
            attempt += 1

    async def download(
        self, snapshot: HubSnapshot, file: HubFile, target: Path, on_bytes: Callable[[int], None]
    ) -> None:
        """Bring one file to `target`, which appears only once it is whole and verified; until then its
        bytes wait beside it, under `PARTIAL_SUFFIX`, and are continued by the next call.

        Args:
            on_bytes: called with the bytes of this file that are here so far.

        Raises:
            ModelNotFound, PermissionDenied, UpstreamFailed: see `ModelStore.pull`.
        """
        partial = _Partial(target.with_name(target.name + PARTIAL_SUFFIX), file)
        for fresh in (False, True):  # a stale or damaged beginning deserves one start from zero
            await self._complete(snapshot, partial, on_bytes)
            if await asyncio.to_thread(partial.verified):
                await asyncio.to_thread(partial.publish, target)
                return
            partial.drop()
            if fresh:
                break
        raise UpstreamFailed(
            f"{file.name} of {snapshot.repository} arrived with another checksum than the hub announces; "
            "nothing was installed"
        )

    async def _complete(
        self, snapshot: HubSnapshot, partial: _Partial, on_bytes: Callable[[int], None]
    ) -> None:
        """Fetch until the partial file has the announced size."""
        import httpx

        size_bytes, failures = partial.file.size_bytes, 0
        while (have := partial.size()) != size_bytes:
            try:
                await self._fetch_rest(snapshot, partial, have or 0, on_bytes)
                reason = "the connection ended early"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = type(error).__name__
            except _TryAgain as error:
                reason = str(error)
            now = partial.size()
            if now == size_bytes:
                break
            failures = 1 if (now or 0) > (have or 0) else failures + 1
            if failures > len(self._retry_delays_s):
                raise UpstreamFailed(
                    f"{partial.file.name} of {snapshot.repository} broke off at {now or 0} of {size_bytes} "
                    f"bytes ({reason}); pull again to continue from there"
                )
            await asyncio.sleep(self._retry_delays_s[failures - 1])
        on_bytes(size_bytes)

    async def _fetch_rest(
        self, snapshot: HubSnapshot, partial: _Partial, have: int, on_bytes: Callable[[int], None]
    ) -> None:
        file = partial.file
        path = f"/{snapshot.repository}/resolve/{snapshot.commit}/{quote(file.name)}"
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with self._client.stream("GET", path, headers=headers) as response:
            if response.status_code == 416:  # what we have is not a beginning of this file
                partial.drop()
                raise _TryAgain("the hub refused to continue")
            if response.status_code not in (200, 206):
                _refuse(response, snapshot.repository, file.name)
            start = _start_of(response)
            if start not in (0, have):
                raise _TryAgain("the hub sent another part than asked for")
            await partial.write(response.aiter_raw(), start, on_bytes)

    async def _listing(self, path: str, repository: str, revision: str) -> object:
        import httpx

        body = bytearray()
        try:
            async with self._client.stream("GET", path, params={"blobs": "true"}) as response:
                if response.status_code != 200:
                    _refuse(response, repository, f"revision {revision}")
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_LISTING_BYTES:
                        raise UpstreamFailed(f"the hub's listing of {repository} has no end")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _TryAgain(type(error).__name__) from error
        try:
            return json.loads(body)
        except ValueError as error:
            raise UpstreamFailed(f"the hub's listing of {repository} is not JSON") from error


class _Partial:
    """A file on its way to disk. Hashed once complete: what counts is what lies there, however many
    pulls brought it."""

    def __init__(self, path: Path, file: HubFile) -> None:
        self._path = path
        self.file = file

    def size(self) -> int | None:
        """Bytes that lie here; None: no file yet, which is less than an empty one."""
        try:
            size_bytes = self._path.stat().st_size
        except FileNotFoundError:
            return None
        if size_bytes <= self.file.size_bytes:
            return size_bytes
        self.drop()
        return None

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)

    async def write(self, chunks: AsyncIterator[bytes], start: int, on_bytes: Callable[[int], None]) -> None:
        """Put what arrives at `start`, and keep it also when the connection breaks."""
        done = start
        with self._path.open("r+b" if start else "wb") as sink:
            sink.seek(start)
            waiting = bytearray()
            try:
                async for chunk in chunks:
                    waiting += chunk
                    if done + len(waiting) > self.file.size_bytes:
                        waiting.clear()
                        raise _TryAgain("the hub sent more than it announced")
                    if len(waiting) >= WRITE_BYTES:
                        block, waiting = bytes(waiting), bytearray()
                        await asyncio.to_thread(sink.write, block)
                        done += len(block)
                        on_bytes(done)
            finally:
                sink.write(waiting)
                done += len(waiting)
        on_bytes(done)

    def verified(self) -> bool:
        hasher = self.file.hasher()
        with self._path.open("rb") as source:
            while block := source.read(WRITE_BYTES):
                hasher.update(block)
        return hasher.hexdigest() == self.file.digest

    def publish(self, target: Path) -> None:
        with self._path.open("rb") as written:
            os.fsync(written.fileno())
        self._path.replace(target)


class _TryAgain(Exception):
    """A failure that may pass; the text says what it was."""


def _refuse(response: httpx.Response, repository: str, what: str) -> NoReturn:
    """Turn the hub's answer into our error; it explains itself in a header."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if status == 429 or status >= 500:
        raise _TryAgain(f"the hub answered {status}")
    if status == 403 and response.history:  # a signed address that has expired
        raise _TryAgain("the hub's storage answered 403")
    if code == "GatedRepo" or status == 403:
        raise PermissionDenied(
            f"{repository} is gated: accept its terms on the hub, then set HF_TOKEN to your token"
        )
    if code == "RepoNotFound":
        raise ModelNotFound(f"the hub has no public {repository}", field="model")
    if status == 401:  # also the hub's answer to strangers who ask for what does not exist
        raise PermissionDenied(f"the hub has no public {repository}; a private one needs HF_TOKEN")
    if status == 404 and code != "EntryNotFound":
        raise ModelNotFound(f"the hub has no {repository} with {what}", field="model")
    raise UpstreamFailed(f"the hub answered {status} for {what} of {repository}")


def _snapshot(repository: str, revision: str, body: object) -> HubSnapshot:
    try:
        commit = _text(body, "sha")
        rows = body["siblings"]  # type: ignore[index]
        if not _COMMIT.fullmatch(commit):
            raise ValueError(commit)
        files = tuple(_file(row) for row in rows if _text(row, "rfilename") == Path(row["rfilename"]).name)
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamFailed(f"the hub's listing of {repository} was not understood") from error
    if _COMMIT.fullmatch(revision) and commit != revision:
        raise UpstreamFailed(f"the hub answered with another commit of {repository} than asked for")
    return HubSnapshot(repository, commit, files, _licence(body))


def _licence(body: object) -> str | None:
    """The page's own word; nothing else depends on it, so that whatever is odd counts as none."""
    card = body.get("cardData") if isinstance(body, dict) else None
    named = card.get("license") if isinstance(card, dict) else None
    return named[:_LONGEST_LICENCE] if isinstance(named, str) and named.isprintable() else None


def _file(row: Any) -> HubFile:
    large = row.get("lfs")
    if large:
        sha256, size = _text(large, "sha256"), large["size"]
        if not _SHA256.fullmatch(sha256):
            raise ValueError(sha256)
        return HubFile(row["rfilename"], _size(size), sha256, None)
    blob = _text(row, "blobId")
    if not _COMMIT.fullmatch(blob):
        raise ValueError(blob)
    return HubFile(row["rfilename"], _size(row["size"]), None, blob)


def _text(row: Any, key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("size")
    return value


def _start_of(response: httpx.Response) -> int:
    """Where in the file the answer begins; servers may ignore a Range."""
    if response.status_code == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1
