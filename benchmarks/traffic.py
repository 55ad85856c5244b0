"""Requests to a speech-to-text server: which recordings, by which door, when, and what became of each.

Two ways to send them. `closed_loop`: so many clients, each sending its next request when the last is
answered; shows what a server can do. `open_loop`: requests that arrive when they arrive, whatever the server
is doing; shows what users feel. There, time counts from when a request was due, not from when it could be
sent: otherwise a server that stalls would keep the very requests from being counted that its stall delays.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from recordings import english_clips

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ

_KINDS = ("speech", "noisy", "telephone", "conversation", "meeting")
_KEEP_ALIVE_S = 2.0  # less than any server's, so that no request meets a connection that is just being closed


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording in memory, as a client would send it."""

    name: str
    content: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, ready to be sent any number of times. seconds: of audio in it."""

    door: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """due_s, ended_s: since the run began. failure: what kind, None where it was answered with a result."""

    door: str
    audio_s: float
    due_s: float
    ended_s: float
    failure: str | None

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.due_s


@dataclass(frozen=True, slots=True)
class Run:
    """wall_s: from the first request to the last answer."""

    outcomes: tuple[Outcome, ...]
    wall_s: float

    @property
    def answered(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is None]

    @property
    def audio_s(self) -> float:
        """Of what was answered."""
        return sum(outcome.audio_s for outcome in self.answered)

    @property
    def audio_s_per_s(self) -> float:
        return self.audio_s / self.wall_s

    @property
    def failures(self) -> dict[str, int]:
        return dict(Counter(outcome.failure for outcome in self.outcomes if outcome.failure is not None))

    def latency_s(self, share: float) -> float | None:
        """The latency that `share` of the answered requests stayed within."""
        return quantile([outcome.latency_s for outcome in self.answered], share)

    def told(self) -> dict[str, Any]:
        latencies = [outcome.latency_s for outcome in self.answered]
        return {
            "requests": len(self.outcomes),
            "answered": len(latencies),
            "failures": self.failures,
            "wall_s": round(self.wall_s, 3),
            "audio_s": round(self.audio_s, 1),
            "audio_s_per_s": round(self.audio_s_per_s, 2),
            "requests_per_s": round(len(latencies) / self.wall_s, 3),
            "latency_s": {name: self.latency_s(share) for name, share in QUANTILES.items()}
            | {"mean": statistics.fmean(latencies) if latencies else None},
        }


QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "worst": 1.0}

Send = Callable[[Prepared], Awaitable[str | None]]
"""Sends a request and reads the whole answer; None, or the kind of failure."""


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that `share` of them do not exceed; None where there are none."""
    if not values:
        return None
    rank = math.ceil(round(share * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


# -- recordings


def mixed_clips(speech: Path | None, count: int, *, longest_s: float = 120.0, seed: int = 0) -> list[Clip]:
    """`count` recordings of mixed lengths and formats from the manifest in `speech`; without one, the two of
    the embedded model's wheel (10 and 44 s). The same arguments give the same clips."""
    usable = [
        entry
        for entry in english_clips(speech)
        if entry.kind in _KINDS and entry.raw is None and 1.0 <= (entry.duration or 0.0) <= longest_s
    ]
    if not usable:
        return [one_clip(path) for path in sample_recordings()]
    # Spread over the lengths: by far the most clips of a set are short.
    by_length = sorted(usable, key=lambda entry: (entry.duration or 0.0, entry.name))
    chosen = [by_length[round(place)] for place in _spread(len(by_length), min(count, len(by_length)))]
    random.Random(seed).shuffle(chosen)
    return [Clip(entry.audio.name, entry.audio.read_bytes(), entry.duration or 0.0) for entry in chosen]


def _spread(length: int, count: int) -> Iterator[float]:
    """`count` places in a row of `length`: half evenly, half in its upper quarter."""
    upper = count // 2
    lower = count - upper
    yield from (index * (length - 1) / max(1, lower - 1) for index in range(lower))
    start = 0.75 * (length - 1)
    yield from (start + (index + 0.5) * (length - 1 - start) / max(1, upper) for index in range(upper))


def one_clip(path: Path) -> Clip:
    with open_audio(path) as stream:
        samples = sum(block.shape[-1] for block in stream.blocks())
    return Clip(path.name, path.read_bytes(), samples / SAMPLE_RATE_HZ)


# -- doors


def _form(door: str, path: str, clip: Clip, fields: Mapping[str, str]) -> Prepared:
    request = httpx.Request(
        "POST", f"http://server{path}", data=dict(fields), files={"file": (clip.name, clip.content)}
    )
    body = request.read()
    return Prepared(door, path, {"Content-Type": request.headers["Content-Type"]}, body, clip.seconds)


def _native(clip: Clip, model: str | None) -> Prepared:
    return _form("native", "/v1/transcriptions", clip, {"model": model} if model else {})


def _raw(clip: Clip, model: str | None) -> Prepared:
    query = f"?{httpx.QueryParams({'model': model})}" if model else ""
    headers = {"Content-Type": "application/octet-stream"}
    return Prepared("raw", f"/v1/transcriptions{query}", headers, clip.content, clip.seconds)


def _openai(clip: Clip, model: str | None) -> Prepared:
    fields = {"model": model or "whisper-1", "response_format": "json"}
    return _form("openai", "/v1/audio/transcriptions", clip, fields)


DOORS: Mapping[str, Callable[[Clip, str | None], Prepared]] = {
    "native": _native,
    "raw": _raw,
    "openai": _openai,
}


def prepare(
    clips: Iterable[Clip], doors: Sequence[str], *, model: str | None = None, cached: bool = False
) -> list[Prepared]:
    """Every clip by one of the doors, in turn.

    Args:
        cached: let the server answer from its cache what it has answered before.
    """
    more = {} if cached else {"Cache-Control": "no-store"}
    made = [DOORS[door](clip, model) for clip, door in zip(clips, itertools.cycle(doors), strict=False)]
    return [Prepared(p.door, p.path, {**p.headers, **more}, p.body, p.seconds) for p in made]


# -- sending


def client(url: str, *, key: str | None = None, timeout_s: float = 600.0) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        timeout=timeout_s,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE_S, max_keepalive_connections=None),
        trust_env=False,
    )


def sender(http: httpx.AsyncClient) -> Send:
    async def send(request: Prepared) -> str | None:
        try:
            reply = await http.post(request.path, content=request.body, headers=dict(request.headers))
        except httpx.HTTPError as error:
            return type(error).__name__
        return None if reply.status_code == 200 else _refusal(reply)

    return send


def _refusal(reply: httpx.Response) -> str:
    try:
        code = str(reply.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = ""
    return f"{reply.status_code} {code}".strip()


async def closed_loop(send: Send, requests: Sequence[Prepared], *, clients: int, count: int) -> Run:
    """`count` requests from `clients` that each wait for their answer. All clients begin at once."""
    waiting = iter(list(itertools.islice(itertools.cycle(requests), count)))
    outcomes: list[Outcome] = []
    began = time.perf_counter()

    async def one_client() -> None:
        for request in waiting:
            outcomes.append(await _one(send, request, began, time.perf_counter() - began))

    await asyncio.gather(*(one_client() for _ in range(clients)))
    return Run(tuple(outcomes), time.perf_counter() - began)


async def open_loop(
    send: Send, requests: Sequence[Prepared], *, per_second: float, seconds: float, seed: int = 0
) -> Run:
    """Requests for `seconds`, independent of each other and of their answers (a Poisson process), then all
    that is still to be answered. The same arguments give the same arrivals."""
    draw = random.Random(seed)
    due: list[float] = []
    at_s = draw.expovariate(per_second)
    while at_s < seconds:
        due.append(at_s)
        at_s += draw.expovariate(per_second)
    began = time.perf_counter()
    tasks: list[asyncio.Task[Outcome]] = []
    for due_s, request in zip(due, itertools.cycle(requests), strict=False):
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(send, request, began, due_s)))
    outcomes = await asyncio.gather(*tasks)
    return Run(tuple(outcomes), time.perf_counter() - began)


async def _one(send: Send, request: Prepared, began: float, due_s: float) -> Outcome:
    failure = await send(request)
    return Outcome(request.door, request.seconds, due_s, time.perf_counter() - began, failure)
