import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native import schemas
from voiceforge.testing.scripted_services import scripted_services


async def test_the_root_tells_who_and_where(client):
    told = (await client.get("/")).json()
    assert (told["name"], told["version"]) == ("VoiceForge", "1.2.3")
    for link in told["links"].values():
        assert (await client.get(link)).status_code in (200, 405)


async def test_ready_only_with_the_default_model_and_until_drained(client, services):
    assert (await client.get("/health/ready")).status_code == 200
    services.health.drain()
    reply = await client.get("/health/ready")
    assert reply.status_code == 503
    assert {check["name"]: check["status"] for check in reply.json()["checks"]}["serving"] == "failed"
    assert (await client.get("/health/live")).status_code == 200


async def test_not_ready_and_failed_while_the_model_is_missing(scripted, tmp_path):
    app = create_app(
        scripted_services(scripted, tmp_path, ready=False), HttpConfig(temp_dir=tmp_path, version="1")
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/health/live")).json() == {"status": "ok"}


async def test_health_answers_as_documented(client):
    for path in ("/health", "/health/ready"):
        told = (await client.get(path)).json()
        assert schemas.HealthOut(**told).model_dump() == told


async def test_stats_count(client, services):
    services.metrics.observe_transcription(model="fake", audio_s=12.5, processing_s=1.0)
    await client.get("/nowhere")
    told = (await client.get("/stats")).json()
    assert told["requests"] == 1
    assert told["errors"] == 1
    assert told["audio_seconds"] == 12.5
    assert told["models_loaded"] == ["fake"]


async def test_metrics_are_in_prometheus_format(client):
    await client.post("/v1/transcriptions", content=b"x")
    reply = await client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    [sample] = [s for s in families["voiceforge_requests"].samples if s.labels["status"] == "200"]
    assert sample.labels["route"] == "/v1/transcriptions"


async def test_models_in_openais_shape(client):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["fake", "org/name"]
    assert {"id", "object", "created", "owned_by"} <= set(listed["data"][0])
    everything = (await client.get("/v1/models?all=true")).json()["data"]
    assert [model["id"] for model in everything if not model["installed"]] == ["bigger"]


@pytest.mark.parametrize("path", ["org/name", "org%2Fname"])
async def test_model_ids_may_contain_slashes(client, path):
    assert (await client.get(f"/v1/models/{path}")).json()["id"] == "org/name"


async def test_a_model_is_found_by_its_alias(client):
    assert (await client.get("/v1/models/whisper-1")).json()["id"] == "fake"


async def test_the_documentation_page_needs_nothing_from_elsewhere(client):
    page = (await client.get("/docs")).text
    assert "http" not in page.replace("http-equiv", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page
        assert (await client.get(f"/docs/assets/{asset}")).status_code == 200


async def test_openapi_is_complete(client):
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for path in ("/v1/transcriptions", "/transcribe", "/v1/audio/transcriptions", "/v1/audio/translations"):
        operation = operations["post", path]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["file"]["format"] == "binary"
        assert {"401", "404", "413", "422", "429", "503"} <= set(operation["responses"])
        for status, response in operation["responses"].items():
            if status != "200":
                assert "$ref" in response["content"]["application/json"]["schema"]
        assert "HTTPValidationError" not in str(operation)
    native = operations["post", "/v1/transcriptions"]
    assert {"text/vtt", "application/x-subrip", "text/tab-separated-values"} <= set(
        native["responses"]["200"]["content"]
    )
    assert "audio/*" in native["requestBody"]["content"]
    assert all(operation.get("summary") and operation.get("description") for operation in operations.values())


async def test_every_reference_in_openapi_leads_somewhere(client):
    document = (await client.get("/openapi.json")).json()
    references: set[str] = set()

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                references.add(node["$ref"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(document)
    assert references
    for reference in references:
        found = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]
