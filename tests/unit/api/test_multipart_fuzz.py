"""Forms with bytes flipped, cut, doubled and shuffled: refused or taken, never a crash, nothing left."""

import gc
import logging
import random

import httpx
import pytest

from voiceforge.services.recordings import AudioFile
from voiceforge.testing.mutations import damaged_form

ROUNDS = 2_000
WARM_UP = 500
LARGE_BYTES = 1_200_000  # goes to a temp file
BOUNDARY = "----boundary7MA4YWxk"


def sound_form(recording: bytes) -> bytes:
    pieces = []
    for name, value in [
        ("model", "fake"),
        ("language", "en"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.5"),
        ("temperature", "0"),
        ("prompt", "Grüße aus Köln"),
    ]:
        pieces.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n')
    pieces.append(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="upload"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(pieces).encode() + recording + f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture
def unlogged():
    """pytest keeps every record, which would look like a leak."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


async def test_mutated_forms(make_app, scripted, temp_dir, log_lines, unlogged):
    rng = random.Random(20261120)
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=True)
    small, large = sound_form(b"RIFF....WAVEfmt "), sound_form(b"RIFF....WAVEfmt " + bytes(LARGE_BYTES))
    seen: set[int] = set()
    in_files = alive = 0
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=10) as client:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        for form in (small, large):
            reply = await client.post("/v1/audio/transcriptions", content=form, headers=headers)
            assert reply.status_code == 200
        for number in range(ROUNDS):
            path = rng.choice(["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/transcriptions"])
            body = damaged_form(large if number % 10 == 0 else small, BOUNDARY.encode(), rng)
            reply = await client.post(path, content=body, headers=headers)
            assert reply.status_code < 500, (number, body[:2_000])
            seen.add(reply.status_code)
            if reply.status_code != 200:
                assert reply.json()["error"]["message"]
            in_files += any(isinstance(request.source, AudioFile) for request in scripted.requests)
            scripted.requests.clear()
            scripted.uploads.clear()
            log_lines.clear()
            if number == WARM_UP:
                alive = _objects()
    assert {200, 400, 422} <= seen
    assert in_files
    assert not list(temp_dir.iterdir())
    assert _objects() - alive < (ROUNDS - WARM_UP) / 10, "something of every request stays"


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_mutated_queries_and_json(client):
    rng = random.Random(20261121)
    alphabet = [
        "model",
        "=",
        "&",
        "fake",
        "words",
        "true",
        "[",
        "]",
        "%",
        "%ff",
        "keyterm",
        "1e999",
        "nan",
        "+",
    ]
    for _ in range(200):
        query = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        reply = await client.post(f"/v1/transcriptions?{query}", content=b"x")
        assert reply.status_code < 500, query
        document = "".join(
            rng.choices(['{"url":', '"x"', "{", "}", "[", "]", "null", "1e999", ",", '"words":'], k=6)
        )
        reply = await client.post(
            "/v1/transcriptions", content=document, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code < 500, document
