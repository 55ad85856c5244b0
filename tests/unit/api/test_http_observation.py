import re

import pytest
import structlog


@pytest.mark.parametrize("given", ["abc-123", "req_1.2:3", "A" * 128, "4f8a/b+c=="])
async def test_a_sound_request_id_is_kept(client, given):
    reply = await client.get("/", headers={"X-Request-ID": given})
    assert reply.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", " ", "a b", "A" * 129, "a\x7f", 'a"b', "<script>", "ü".encode()])
async def test_an_unsound_request_id_is_replaced(client, given):
    reply = await client.get("/", headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])


async def test_ids_differ_from_request_to_request(client):
    first, second = [(await client.get("/")).headers["x-request-id"] for _ in range(2)]
    assert first != second


async def test_every_log_line_of_a_request_carries_its_id_and_no_content(client, log_lines):
    await client.post("/v1/transcriptions?prompt=whispered", content=b"x", headers={"X-Request-ID": "traced"})
    [line] = [line for line in log_lines if line["event"] == "request"]
    assert line["request_id"] == "traced"
    assert line["route"] == "/v1/transcriptions"
    assert line["status"] == 200
    assert "whispered" not in repr(log_lines)
    assert "Hello" not in repr(log_lines)


async def test_probes_do_not_fill_the_log(client, log_lines):
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        await client.get(path)
    assert {line["level"] for line in log_lines if line["event"] == "request"} == {"debug"}


async def test_the_id_does_not_leak_into_the_next_request(client):
    await client.get("/", headers={"X-Request-ID": "first"})
    assert "request_id" not in structlog.contextvars.get_contextvars()


async def test_requests_are_counted_by_route_template(client, services):
    await client.get("/v1/models/org/name")
    await client.get("/v1/models/fake")
    await client.get("/nowhere/1")
    await client.get("/nowhere/2")
    total = services.metrics.total
    assert total("requests", route="/v1/models/{model_id:path}", status="200", surface="openai") == 2
    assert total("requests", route="(none)", status="404") == 2
    assert total("requests_in_flight") == 0


async def test_methods_nobody_knows_make_no_new_label(client, services):
    await client.request("BREW", "/")
    assert services.metrics.total("requests", method="BREW") == 0
    assert services.metrics.total("requests", method="OTHER") == 1
