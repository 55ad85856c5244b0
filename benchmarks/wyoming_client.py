"""Loads a Wyoming server with the `wyoming` library's own client. For the Python of the peer's environment.

    python wyoming_client.py tcp://127.0.0.1:10300 recording.wav

Each line of input, `{"clients": 16, "count": 32}`, is one turn: so many utterances, each on a connection of
its own as Home Assistant does, by so many clients at once. The answer is one line, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import wave

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient

_CHUNK_BYTES = 32_000  # a second


async def utter(uri: str, pcm: bytes, rate_hz: int) -> str | None:
    """The text; None where the server went away without one."""
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(rate=rate_hz, width=2, channels=1).event())
        for start in range(0, len(pcm), _CHUNK_BYTES):
            chunk = AudioChunk(rate=rate_hz, width=2, channels=1, audio=pcm[start : start + _CHUNK_BYTES])
            await client.write_event(chunk.event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return str(Transcript.from_event(event).text)
    return None


async def turn(uri: str, pcm: bytes, rate_hz: int, clients: int, count: int) -> dict[str, object]:
    left = iter(range(count))
    latencies_s: list[float] = []
    words: set[int] = set()
    failures = 0
    began = time.perf_counter()

    async def one_client() -> None:
        nonlocal failures
        for _ in left:
            started = time.perf_counter()
            try:
                text = await utter(uri, pcm, rate_hz)
            except OSError:
                text = None
            if text is None:
                failures += 1
                continue
            words.add(len(text.split()))
            latencies_s.append(time.perf_counter() - started)

    await asyncio.gather(*(one_client() for _ in range(clients)))
    wall_s = time.perf_counter() - began
    return {"wall_s": wall_s, "latencies_s": latencies_s, "words": sorted(words), "failures": failures}


def main() -> None:
    uri, path = sys.argv[1:]
    with wave.open(path) as file:
        if (file.getsampwidth(), file.getnchannels()) != (2, 1):
            raise SystemExit("the recording must be 16 bit mono")
        rate_hz, pcm = file.getframerate(), file.readframes(file.getnframes())
    for line in sys.stdin:
        wish = json.loads(line)
        print(json.dumps(asyncio.run(turn(uri, pcm, rate_hz, wish["clients"], wish["count"]))), flush=True)


if __name__ == "__main__":
    main()
