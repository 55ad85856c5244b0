"""Clients of live streams: each sends its script in real time and notes when which event came.

A process of its own, so that it does not share an interpreter with anything measured:

    python benchmarks/stream_clients.py ORDER.pickle > notes.jsonl

A frame is sent when its last sample would have been spoken. Times are seconds from the moment at which the
first sample of the script would have been.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import websockets
from stream_scripts import Script

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ

_CLOSE_S = 30.0
"""How long the server may take for what is left after the last frame."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as a client saw it. kind: interim, final, or done. stable: how many of its words are so.

    start, end: of the stretch it speaks of, in seconds of the script.
    """

    at_s: float
    kind: str
    text: str
    start: float
    end: float
    stable: int = 0
    endpoint: bool = False


@dataclass(slots=True)
class Notes:
    """Of one stream. late_s: the latest that a frame went out after its time: of a busy client."""

    script: int
    seconds: float
    heard: list[Heard] = field(default_factory=list)
    late_s: float = 0.0
    error: str | None = None


class Door(Protocol):
    """How one protocol is asked, and what its messages mean."""

    def url(self, server: str, options: Mapping[str, Any]) -> str: ...

    def end(self) -> str: ...

    def read(self, message: Any, at_s: float) -> Heard | None: ...


class NativeDoor:
    def url(self, server: str, options: Mapping[str, Any]) -> str:
        return f"{server}/v1/stream?{urlencode(options, doseq=True)}"

    def end(self) -> str:
        return '{"type":"close"}'

    def read(self, message: Any, at_s: float) -> Heard | None:
        match message["type"]:
            case "interim":
                return Heard(
                    at_s, "interim", message["text"], message["start"], message["end"], message["stable"]
                )
            case "final":
                by_silence = message["reason"] == "silence"
                words = [word for segment in message["segments"] for word in segment["words"]]
                end = words[-1]["end"] if words else message["end"]
                return Heard(at_s, "final", message["text"], message["start"], end, 0, by_silence)
            case "closed":
                return Heard(at_s, "done", "", 0.0, message["duration"])
            case "error":
                raise RuntimeError(message["error"]["message"])
        return None


class DeepgramDoor:
    def url(self, server: str, options: Mapping[str, Any]) -> str:
        asked = {
            "encoding": "linear16",
            "sample_rate": SAMPLE_RATE_HZ,
            "interim_results": str(options.get("interim", True)).lower(),
            "endpointing": options.get("endpointing_ms", 300),
        }
        return f"{server}/v1/listen?{urlencode(asked)}"

    def end(self) -> str:
        return '{"type":"CloseStream"}'

    def read(self, message: Any, at_s: float) -> Heard | None:
        if message["type"] == "Metadata":
            return Heard(at_s, "done", "", 0.0, message["duration"])
        if message["type"] != "Results":
            return None
        text = message["channel"]["alternatives"][0]["transcript"]
        start = message["start"]
        kind = "final" if message["is_final"] else "interim"
        return Heard(at_s, kind, text, start, start + message["duration"], 0, message["speech_final"])


DOORS: Mapping[str, Door] = {"native": NativeDoor(), "deepgram": DeepgramDoor()}


@dataclass(frozen=True, slots=True)
class Order:
    """server: ws://… . assigned: of each stream, its script. stagger_s: the starts are spread over it."""

    server: str
    door: str
    options: Mapping[str, Any]
    frame_ms: int
    scripts: Sequence[Script]
    assigned: Sequence[int]
    stagger_s: float


async def run_all(order: Order) -> list[Notes]:
    step_s = order.stagger_s / max(1, len(order.assigned))
    streams = (_stream(order, place, number * step_s) for number, place in enumerate(order.assigned))
    return await asyncio.gather(*streams)


async def _stream(order: Order, place: int, delay_s: float) -> Notes:
    script = order.scripts[place]
    notes = Notes(place, script.seconds)
    door = DOORS[order.door]
    await asyncio.sleep(delay_s)
    try:
        async with websockets.connect(
            door.url(order.server, order.options), max_size=None, compression=None, open_timeout=30
        ) as socket:
            began = time.perf_counter()
            hearing = asyncio.create_task(_hear(socket, door, began, notes))
            await _speak(socket, door, script, order.frame_ms, began, notes, hearing)
            await asyncio.wait_for(hearing, _CLOSE_S)
    except Exception as error:  # a refused or broken stream is a result
        notes.error = f"{type(error).__name__}: {error}"[:200]
    return notes


async def _hear(socket: websockets.ClientConnection, door: Door, began: float, notes: Notes) -> None:
    async for message in socket:
        heard = door.read(json.loads(message), time.perf_counter() - began)
        if heard is not None:
            notes.heard.append(heard)
            if heard.kind == "done":
                return
    raise RuntimeError("the server closed before it was done")


async def _speak(
    socket: websockets.ClientConnection,
    door: Door,
    script: Script,
    frame_ms: int,
    began: float,
    notes: Notes,
    hearing: asyncio.Task[None],
) -> None:
    size = frame_ms * SAMPLE_RATE_HZ // 1000
    for first in range(0, len(script.samples), size):
        frame = script.samples[first : first + size]
        due = began + (first + len(frame)) / SAMPLE_RATE_HZ
        wait_s = due - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        notes.late_s = max(notes.late_s, time.perf_counter() - due)
        if hearing.done():
            return
        await socket.send(frame.tobytes())
    await socket.send(door.end())


def main() -> None:
    with Path(sys.argv[1]).open("rb") as file:
        order = pickle.load(file)
    print(json.dumps([asdict(notes) for notes in asyncio.run(run_all(order))]))


if __name__ == "__main__":
    main()
