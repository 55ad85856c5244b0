"""Earlier results through every door; in Redis, shared by servers; and a server whose Redis dies at work."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from voiceforge.testing.redis_server import RedisServer, find_redis, redis_server

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def serve(start: Start, redis: RedisServer | None = None) -> str:
    settings = {}
    if redis is not None:
        settings["VOICEFORGE_CACHE__URL"] = redis.url.replace("//", "//default:s3cret-word@")
    process = start("serve", "--port", "0", settings=settings)
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    return url


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(url: str, recording: bytes) -> httpx.Response:
    return httpx.post(f"{url}/v1/transcriptions", content=recording, timeout=60)


def test_every_door_answers_from_an_earlier_result_as_it_did_at_first(
    start: Start, clips: dict[str, Path]
) -> None:
    url = serve(start)
    recording = clips["beckett"].read_bytes()

    def native(fmt: str, **more: str) -> httpx.Response:
        return httpx.post(f"{url}/v1/transcriptions", params={"format": fmt, **more}, content=recording)

    def form(path: str, **fields: str) -> httpx.Response:
        return httpx.post(f"{url}{path}", data=fields, files={"file": ("a.wav", recording)}, timeout=60)

    asked = [
        (native, ("json",), {}),
        (native, ("json",), {"words": "true"}),
        (native, ("srt",), {}),
        (native, ("txt",), {}),
        (form, ("/transcribe",), {}),
        (form, ("/v1/transcriptions",), {"format": "vtt"}),
        (form, ("/v1/audio/transcriptions",), {"model": "whisper-1"}),
        (form, ("/v1/audio/transcriptions",), {"response_format": "verbose_json"}),
        (form, ("/v1/audio/transcriptions",), {"response_format": "text"}),
        (form, ("/v1/audio/transcriptions",), {"stream": "true"}),
    ]
    for door, arguments, fields in asked:
        earlier = [door(*arguments, **fields) for _ in range(3)][1:]
        assert [answer.status_code for answer in earlier] == [200, 200]
        assert earlier[0].content == earlier[1].content
        if "stream" not in fields:
            assert [answer.headers["x-cache"] for answer in earlier] == ["hit", "hit"]
    # The same recording in other words and formats: two results are kept, with word times and without.
    stats = httpx.get(f"{url}/stats").json()["cache"]
    assert (stats["entries"], stats["misses"]) == (2, 2)
    plain = native("json").json()
    no_store = {"Cache-Control": "no-store"}
    anew = httpx.post(f"{url}/v1/transcriptions", content=recording, headers=no_store, timeout=60).json()
    for changing in ("cache_hit", "cached_at", "processing_s", "rtf"):
        del plain[changing], anew[changing]
    assert plain == anew


@pytest.mark.skipif(find_redis() is None, reason="there is no Redis server here")
def test_servers_share_results_and_go_on_when_redis_is_killed(
    start: Start, redis: RedisServer, clips: dict[str, Path], tmp_path: Path
) -> None:
    redis.command("CONFIG", "SET", "requirepass", "s3cret-word")
    recording = clips["beckett"].read_bytes()
    one, other = serve(start, redis), serve(start, redis)
    first = ask(one, recording)
    assert (first.status_code, first.headers["x-cache"]) == (200, "miss")
    second = ask(other, recording)
    assert (second.headers["x-cache"], second.json()["text"]) == ("hit", first.json()["text"])
    assert httpx.get(f"{other}/stats").json()["cache"]["entries"] is None

    with ThreadPoolExecutor(16) as pool:
        # Each differs by a trailing byte, which no decoder minds, so none answers for another.
        coming = [pool.submit(ask, one, recording + bytes([number])) for number in range(16)]
        redis.kill()
        answers = [future.result() for future in coming]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["text"] for answer in answers} == {first.json()["text"]}
    assert ask(one, recording).headers["x-cache"] == "miss"
    assert httpx.get(f"{one}/health/ready").status_code == 200
    refused = httpx.delete(f"{one}/cache")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "voiceforge_cache_available" in httpx.get(f"{one}/metrics").text

    redis.start()
    redis.command("CONFIG", "SET", "requirepass", "s3cret-word")
    wait_until(lambda: ask(one, recording).headers["x-cache"] == "hit")
    log = (tmp_path / "stderr-0").read_text()
    assert log.count("cache out of reach") == 1
    assert log.count("cache in reach again") == 1
    assert "s3cret-word" not in log
