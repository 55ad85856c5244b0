"""Where live audio comes from: a microphone, a recording that is played, or standard input."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from voiceforge.cli.event_loop import in_background
from voiceforge.errors import DependencyMissing, InvalidRequest, Unavailable

_BLOCK_MS = 100
_MOST_WAITING = 600  # blocks: a minute, then the oldest go


async def standard_input() -> AsyncIterator[bytes]:
    """Its bytes as they come."""
    while data := await in_background(os.read, sys.stdin.fileno(), 64 * 1024):
        yield data


async def until_interrupted(audio: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Ctrl-C ends the audio, not the command: what was said before is still told. A second one ends all."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; not the main thread
        loop.add_signal_handler(signal.SIGINT, interrupted.set)
    stop = asyncio.create_task(interrupted.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(audio, None))
            await asyncio.wait((coming, stop), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            if (block := coming.result()) is None:
                return
            yield block
    finally:
        stop.cancel()
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)


async def played(recording: Path, *, realtime: bool) -> AsyncIterator[bytes]:
    """The recording as `services.live_audio.LIVE_FORMAT`.

    Args:
        realtime: each block when its last sample would have been spoken, otherwise all at once.

    Raises:
        InvalidAudio
    """
    from voiceforge.services.live_audio import LIVE_BYTES_PER_S, pcm_blocks

    loop = asyncio.get_running_loop()
    began = loop.time()
    blocks = pcm_blocks(recording, block_ms=_BLOCK_MS)
    played_bytes = 0
    while (block := await in_background(next, blocks, None)) is not None:
        played_bytes += len(block)
        if realtime:
            await asyncio.sleep(began + played_bytes / LIVE_BYTES_PER_S - loop.time())
        yield block


async def microphone(device: str | None) -> AsyncIterator[bytes]:
    """As `services.live_audio.LIVE_FORMAT`, without end.

    Args:
        device: number, or part of a name; None: the system's default.

    Raises:
        DependencyMissing: what reaches microphones is not installed.
        InvalidRequest: there is no such device.
        Unavailable: it cannot be opened, or was unplugged.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)

    def heard(data: Any, _frames: int, _time: Any, _status: Any) -> None:
        loop.call_soon_threadsafe(put, bytes(data))

    def put(block: bytes) -> None:
        if blocks.full():
            blocks.get_nowait()
        blocks.put_nowait(block)

    with _opened(device, heard) as stream:
        while True:
            try:
                yield await asyncio.wait_for(blocks.get(), timeout=5.0)
            except TimeoutError:
                if not stream.active:
                    raise Unavailable("the microphone stopped") from None


def _opened(device: str | None, heard: Any) -> AbstractContextManager[Any]:
    try:
        import sounddevice
    except ImportError:
        raise DependencyMissing("a microphone needs sounddevice. Run: pip install sounddevice") from None
    except OSError:
        raise DependencyMissing(
            "a microphone needs the PortAudio library (Debian: apt-get install libportaudio2)"
        ) from None
    from voiceforge.services.live_audio import LIVE_FORMAT

    try:
        stream: AbstractContextManager[Any] = sounddevice.RawInputStream(
            samplerate=LIVE_FORMAT.sample_rate_hz,
            channels=LIVE_FORMAT.channels,
            dtype="int16",
            blocksize=LIVE_FORMAT.sample_rate_hz * _BLOCK_MS // 1000,
            device=int(device) if device is not None and device.isdecimal() else device,
            callback=heard,
        )
    except ValueError as error:
        raise InvalidRequest(f"there is no such microphone: {error}", field="device") from None
    except sounddevice.PortAudioError as error:
        raise Unavailable(f"the microphone cannot be opened: {error.args[0]}") from None
    return stream
