"""Letters go to a command of this machine, as JSON on its standard input; 0 says that it took them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence

from voiceforge.errors import DeadlineExceeded, UpstreamFailed
from voiceforge.infra.letters.base import Letter


class LetterCommand:
    """Args:
    command: the program and its arguments; no shell reads them.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float = 30.0) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s

    async def send(self, letter: Letter) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise UpstreamFailed("the command for letters cannot be run") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.communicate(json.dumps(letter.document()).encode() + b"\n")
        except TimeoutError:
            raise DeadlineExceeded("the command for letters takes too long") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            raise UpstreamFailed(f"the command for letters ended with {process.returncode}")
