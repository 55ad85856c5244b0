"""Files that live exactly as long as one request: the middleware removes them however it ends."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from io import FileIO
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.errors import Cancelled

_SCOPE_KEY = "voiceforge.temp_files"


class RequestFiles:
    """The temp files of one request, named by us and never by the client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: list[tuple[FileIO, Path]] = []
        self._over = False
        self.used = False

    async def create_off_loop(self) -> tuple[FileIO, Path]:
        self.used = True
        return await asyncio.to_thread(self.create)

    def create(self) -> tuple[FileIO, Path]:
        """A new empty file, open for writing; blocking.

        Raises:
            Cancelled: the request ended meanwhile (this runs in a thread, which cannot be stopped).
        """
        with self._lock:
            if self._over:
                raise Cancelled("the request is over")
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix="upload-", suffix=".part")
            file, path = FileIO(descriptor, "w"), Path(name)
            self._open.append((file, path))
            return file, path

    def remove_all(self) -> None:
        """Close and delete; blocking, and harmless when repeated."""
        with self._lock:
            self._over = True
            while self._open:
                file, path = self._open.pop()
                file.close()
                path.unlink(missing_ok=True)


def files_of(scope: Scope) -> RequestFiles:
    files = scope[_SCOPE_KEY]
    assert isinstance(files, RequestFiles)
    return files


class TempFiles:
    """Removes the files with the end of the reply: until then, streams included, a decode may read them."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        files = RequestFiles(self._folder)
        scope[_SCOPE_KEY] = files

        async def send_after_removal(message: Message) -> None:
            """Whoever has the whole reply can rely on the files being gone."""
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and files.used:
                await asyncio.to_thread(files.remove_all)
            await send(message)

        try:
            await self._app(scope, receive, send_after_removal)
        finally:
            if files.used:
                # Shielded: a request cancelled while it cleans up must still clean up.
                await asyncio.shield(asyncio.to_thread(files.remove_all))
