"""Jobs over HTTP, from a real server on both databases: the shapes of answers, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from voiceforge.api.native.job_schemas import CompletedJobOut, JobOut
from voiceforge.api.native.schemas import ErrorOut
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.postgres_server import PostgresServer

PATH = "/v1/transcriptions"
BECKETT, DICKENS = sample_recordings()
CLIP = BECKETT.read_bytes()
WAIT_S = 30


class Engine:
    """Says something for every window; while it is held, nothing."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self._says = says_by_length()

    def __call__(self, window: Any, options: Any) -> Any:
        self.reached.set()
        assert self.free.wait(WAIT_S)
        return self._says(window, options)

    def hold(self) -> None:
        self.reached.clear()
        self.free.clear()


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vad: SileroModel, engine: Engine
) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("jobs")
    url = f"sqlite:///{folder}/jobs.db"
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.new_database()
    with job_server(url, folder, vad=vad, script=engine) as made:
        yield made


@pytest.fixture
def client(server: JobServer, engine: Engine) -> Iterator[httpx.Client]:
    """What is left of one test is gone before the next."""
    engine.free.set()
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as made:
        yield made
        engine.free.set()
        while listed := made.get(PATH, params={"limit": 100}).json()["data"]:
            for job in listed:
                assert made.delete(f"{PATH}/{job['id']}").status_code in (204, 404)


@pytest.fixture
def submit(client: httpx.Client) -> Callable[..., dict[str, Any]]:
    def submit(audio: bytes = CLIP, headers: dict[str, str] | None = None, **fields: str) -> dict[str, Any]:
        reply = client.post(
            PATH,
            data={"mode": "async", **fields},
            files={"file": ("clip.wav", audio)},
            headers=headers or {},
        )
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    return submit


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Once it is over; the stream of its events ends with it."""
    client.get(f"{PATH}/{job_id}/events").raise_for_status()
    return dict(client.get(f"{PATH}/{job_id}").json())


def error_of(reply: httpx.Response, status: int) -> Any:
    assert reply.status_code == status, reply.text
    return ErrorOut.model_validate(reply.json()).error


def test_accepted_then_completed_with_the_whole_result(client, submit):
    reply = client.post(
        PATH,
        data={"mode": "async", "metadata": '{"call": [7, null]}', "priority": "high", "words": "true"},
        files={"file": ("C:\\calls\\seven.wav", CLIP)},
    )
    assert reply.status_code == 202
    taken = JobOut.model_validate(reply.json())
    assert reply.headers["location"] == f"{PATH}/{taken.id}"
    assert (taken.filename, taken.priority, taken.metadata) == ("seven.wav", "high", {"call": [7, None]})
    told = ended(client, taken.id)
    done = CompletedJobOut.model_validate(told)
    assert (done.status, done.percent, done.seconds_left, done.error) == ("completed", 100.0, 0.0, None)
    direct = client.post(f"{PATH}?words=true", content=CLIP).json()
    changes = {"processing_s", "rtf"}
    assert {name: told[name] for name in direct if name not in changes} == {
        name: value for name, value in direct.items() if name not in changes
    }
    assert done.created_at <= str(done.started_at) <= str(done.finished_at)
    assert done.created_at.endswith("Z")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("txt", "w1 "),
        ("json", "{"),
        ("verbose_json", "{"),
        ("srt", "1\n00:00"),
        ("vtt", "WEBVTT"),
        ("tsv", "start\t"),
    ],
)
def test_the_result_in_every_format(client, submit, name, start):
    job_id = submit()["id"]
    ended(client, job_id)
    reply = client.get(f"{PATH}/{job_id}/result", params={"format": name})
    assert reply.status_code == 200
    assert reply.text.startswith(start)
    accepted = client.get(f"{PATH}/{job_id}/result", headers={"Accept": reply.headers["content-type"]})
    if name != "verbose_json":
        assert accepted.text == reply.text
