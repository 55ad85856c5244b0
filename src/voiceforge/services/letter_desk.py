"""Letters go out beside what asked for them: an answer tells nobody by its time whether there was one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.letters.base import Letter, LetterKind, Letters
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Letter", "LetterDesk", "LetterKind"]

_log = Logger(__name__)

_MOST_WAITING = 1000
_AGAIN_AFTER_S = (1.0, 10.0)


class LetterDesk:
    """Args:
    letters: None: nobody brings letters; what they would say is in the hands of who runs the server.
    """

    def __init__(self, letters: Letters | None, *, again_after_s: Sequence[float] = _AGAIN_AFTER_S) -> None:
        self._letters = letters
        self._again_after_s = tuple(again_after_s)
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def sends(self) -> bool:
        return self._letters is not None

    def post(self, letter: Letter) -> None:
        """Have it sent; what fails for good is told in the log, without the token and the address."""
        if self._letters is None:
            return
        if len(self._sending) >= _MOST_WAITING:
            _log.error("letter_not_sent", kind=letter.kind.value, problem="too many wait")
            return
        task = asyncio.create_task(self._send(self._letters, letter))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Those that have not gone out are lost; whoever waits for one asks again."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def wait_sent(self) -> None:
        """Until nothing is on its way."""
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send(self, letters: Letters, letter: Letter) -> None:
        for wait_s in (*self._again_after_s, None):
            try:
                await letters.send(letter)
            except VoiceForgeError as error:
                if wait_s is None:
                    _log.error("letter_not_sent", kind=letter.kind.value, problem=error.code)
                    return
                await asyncio.sleep(wait_s)
            except Exception:
                # Without its traceback: that could show the letter.
                _log.error("letter_not_sent", kind=letter.kind.value, problem="unexpected")
                return
            else:
                return
