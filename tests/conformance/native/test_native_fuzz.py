"""A thousand damaged uploads to the server that people run: no 5xx, no hang, nothing left behind."""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from voiceforge.testing.mutations import damaged_form, damaged_recording, sound_recordings

UPLOADS = 1_000
WARM_UP = 250
AT_A_TIME = 4
BOUNDARY = b"----boundary7MA4YWxk"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
HANG_S = 30.0
MOST_GROWTH_BYTES = 24 << 20
"""A decoder that stays weighs 50 kB and more."""
MOST_GROWTH_OBJECTS_PER_UPLOAD = 2
"""A request that stays holds dozens; some hundred in all come and go with timers."""


def form(recording: bytes) -> bytes:
    return (
        b'--%(edge)s\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
        b'--%(edge)s\r\nContent-Disposition: form-data; name="file"; filename="upload"\r\n\r\n%(audio)s\r\n'
        b"--%(edge)s--\r\n" % {b"edge": BOUNDARY, b"audio": recording}
    )


def uploads() -> list[bytes]:
    """Damaged recordings in sound forms; every fifth form has flaws besides."""
    chance = random.Random(20_261_121)
    files = sound_recordings()
    made = []
    for number in range(UPLOADS):
        body = form(damaged_recording(chance.choice(files), chance))
        made.append(damaged_form(body, BOUNDARY, chance) if number % 5 == 0 else body)
    return made


@pytest.fixture
def unlogged() -> Iterator[None]:
    """pytest keeps every record, which would look like a leak."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_damaged_uploads_leave_the_server_as_it_was(door, unlogged):
    bodies = uploads()
    with (
        httpx.Client(
            base_url=door.url, timeout=HANG_S, headers={"Authorization": f"Bearer {door.key}"}
        ) as client,
        ThreadPoolExecutor(AT_A_TIME) as pool,
    ):

        def send(body: bytes) -> str:
            reply = client.post("/v1/transcriptions", content=body, headers=HEADERS)
            assert reply.status_code < 500, (reply.text, body[:2_000])
            return "taken" if reply.status_code == 200 else str(reply.json()["error"]["code"])

        outcomes = Counter(pool.map(send, bodies[:WARM_UP]))
        objects, memory_bytes = held()
        outcomes += Counter(pool.map(send, bodies[WARM_UP:]))
        assert client.get("/health").status_code == 200
    objects_after, memory_after_bytes = held()
    assert outcomes["taken"] > UPLOADS / 3
    assert outcomes["audio_unreadable"] > UPLOADS / 20
    assert outcomes["audio_decoder_crashed"] < UPLOADS / 100
    assert objects_after - objects < MOST_GROWTH_OBJECTS_PER_UPLOAD * (UPLOADS - WARM_UP)
    assert memory_after_bytes - memory_bytes < MOST_GROWTH_BYTES
    assert not list(door.temp_dir.iterdir())


def held() -> tuple[int, int]:
    """Objects and bytes that this process holds, in which the server is; bytes of its keepers included."""
    gc.collect()
    me = psutil.Process()
    return len(gc.get_objects()), sum(process.memory_info().rss for process in (me, *me.children()))
