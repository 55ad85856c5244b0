"""Forms with bytes flipped, cut, doubled and shuffled: refused or taken, never a crash, nothing left."""

import random

import httpx

ROUNDS = 500
BOUNDARY = "----boundary7MA4YWxk"


def sound_form() -> bytes:
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
        "Content-Type: application/octet-stream\r\n\r\nRIFF....WAVEfmt \r\n"
    )
    return ("".join(pieces) + f"--{BOUNDARY}--\r\n").encode()


def mutated(form: bytes, rng: random.Random) -> bytes:
    data = bytearray(form)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        span = rng.randint(1, 60)
        action = rng.randrange(6)
        if action == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif action == 1:
            del data[at : at + span]
        elif action == 2:
            data[at:at] = data[at : at + span]
        elif action == 3:
            data[at:at] = rng.choice(
                [b"\r\n", b"--", f"--{BOUNDARY}".encode(), b"\0", b'"', b";", b"[]", b"\xff"]
            )
        elif action == 4:
            data[at:at] = rng.randbytes(span)
        else:
            del data[at:]
    return bytes(data)


async def test_mutated_forms(make_app, temp_dir):
    rng = random.Random(20261120)
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=True)
    form = sound_form()
    seen: set[int] = set()
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=10) as client:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        reply = await client.post("/v1/audio/transcriptions", content=form, headers=headers)
        assert reply.status_code == 200
        for number in range(ROUNDS):
            path = rng.choice(["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/transcriptions"])
            body = mutated(form, rng)
            reply = await client.post(path, content=body, headers=headers)
            assert reply.status_code < 500, (number, body)
            seen.add(reply.status_code)
            if reply.status_code != 200:
                assert reply.json()["error"]["message"]
    assert {200, 400, 422} <= seen
    assert not list(temp_dir.iterdir())


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
