"""Jobs over HTTP, from a real server on both databases: the shapes of answers, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from voiceforge.api.native.batch_schemas import BatchPageOut, BatchWithItemsOut
from voiceforge.api.native.job_schemas import (
    CompletedJobOut,
    EventOut,
    FoundPageOut,
    JobOut,
    JobPageOut,
    ProgressOut,
)
from voiceforge.api.native.schemas import ErrorOut
from voiceforge.errors import StorageFull, Unavailable
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.old_news import OldNews
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.postgres_server import PostgresServer

PATH = "/v1/transcriptions"
BECKETT, DICKENS = sample_recordings()
CLIP = BECKETT.read_bytes()
WAIT_S = 30
DAY_S = 86_400.0


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


NUL_IN_JSON = '{"a": "\\u0000"}'
HALF_A_PAIR = '{"a": "\\ud800"}'


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", "[1]"),
        ("metadata", "{"),
        ("metadata", '{"a": "' + "x" * 17_000 + '"}'),
        ("metadata", '{"a": NaN}'),
        ("metadata", NUL_IN_JSON),
        ("metadata", HALF_A_PAIR),
        ("metadata", '{"a":' + "[" * 9_000 + "]" * 9_000 + "}"),
        ("metadata", '{"a":' + "[" * 40 + "]" * 40 + "}"),
        ("priority", "urgent"),
        ("prompt", "a\0b"),
        ("prompt", "x" * 70_000),
        ("timeout_s", "5"),
        ("callback_url", "http://127.0.0.1/"),
        ("url", "https://example.org/a.wav"),
    ],
)
def test_what_a_job_cannot_have_is_refused_by_name(client, field, value):
    reply = client.post(PATH, data={"mode": "async", field: value}, files={"file": CLIP})
    assert error_of(reply, 422).field == field
    assert client.get(PATH).json()["data"] == []


@pytest.mark.parametrize(
    "field", [{"priority": "high"}, {"metadata": "{}"}, {"callback_url": "https://example.org"}]
)
def test_what_belongs_to_jobs_is_refused_without_one(client, field):
    error = error_of(client.post(PATH, data=field, files={"file": CLIP}), 422)
    assert error.field == next(iter(field))
    assert "mode=async" in error.message
    plain = client.post("/transcribe", data={"mode": "async"}, files={"file": CLIP})
    assert error_of(plain, 422).field == "mode"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a", "http://[::1]/a", "ftp://example.org/a", "http://169.254.169.254/"]
)
def test_urls_into_private_networks_are_refused_at_once(client, url):
    assert error_of(client.post(PATH, json={"mode": "async", "url": url}), 422).code == "url_refused"


ROUTES = (
    ("GET", ""),
    ("GET", "/result"),
    ("GET", "/events"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
)


@pytest.mark.parametrize("job_id", ["tr_" + "0" * 32, "nonsense", "tr_%00", "bat_" + "0" * 32])
def test_unknown_ids_are_not_found(client, job_id):
    for method, tail in ROUTES:
        assert error_of(client.request(method, f"{PATH}/{job_id}{tail}"), 404).code == "not_found"


def test_what_is_another_tenant_s_is_not_found(client, server, submit):
    request = JobRequest(BECKETT, TranscribeOptions(), caller=trusted("other"), idempotency_key="k")
    foreign = server.run(server.house.jobs.submit(request)).job.id
    for method, tail in ROUTES:
        assert error_of(client.request(method, f"{PATH}/{foreign}{tail}"), 404).code == "not_found"
    assert client.get(PATH).json()["data"] == []
    assert submit(headers={"Idempotency-Key": "k"})["id"] != foreign
    server.run(server.house.jobs.erase(trusted("other"), foreign))


def test_one_key_and_one_body_at_the_same_time_make_one_job(client, submit):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: submit(headers={"Idempotency-Key": "same"}), range(8)))
    assert len({job["id"] for job in made}) == 1
    assert len(client.get(PATH).json()["data"]) == 1


def test_a_key_with_another_body_is_a_conflict(client, submit):
    headers = {"Idempotency-Key": "key"}
    first = submit(headers=headers)
    for fields, audio in (({"words": "true"}, CLIP), ({}, DICKENS.read_bytes())):
        sent = {"mode": "async", **fields}
        reply = client.post(PATH, data=sent, files={"file": audio}, headers=headers)
        assert error_of(reply, 409).field == "Idempotency-Key"
    again = client.post(PATH, data={"mode": "async"}, files={"file": CLIP}, headers=headers)
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (first["id"], "true")


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"caf\xe9", b"a\tb"])
def test_keys_are_bounded(client, key):
    reply = client.post(f"{PATH}?mode=async", content=CLIP, headers={b"Idempotency-Key": key})
    assert error_of(reply, 422).field == "Idempotency-Key"


def test_pages_bring_everything_once_and_filters_choose(client, submit, engine):
    engine.hold()
    ids = [submit(priority="low")["id"] for _ in range(5)]
    seen, query = [], {"limit": "2"}
    while True:
        page = JobPageOut.model_validate(client.get(PATH, params=query).json())
        seen += [job.id for job in page.data]
        if page.next_cursor is None:
            break
        query["cursor"] = page.next_cursor
    assert sorted(seen) == sorted(ids)
    for chosen, count in (
        ({"status": "completed"}, 0),
        ({"model": "moonshine-tiny-en"}, 5),
        ({"model": "other"}, 0),
        ({"batch_id": "bat_1"}, 0),
        ({"created_after": "2100-01-01T00:00:00Z"}, 0),
        ({"created_before": "2100-01-01"}, 5),
        ({"created_before": "1960-01-01"}, 0),
    ):
        assert len(client.get(PATH, params=chosen).json()["data"]) == count, chosen


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "limit=0",
        "limit=101",
        "cursor=abc",
        "cursor=%00",
        "created_after=soon",
        "color=red",
        "model=%00",
        "batch_id=a/b",
    ],
)
def test_bad_list_parameters_are_refused_by_name(client, query):
    assert error_of(client.get(f"{PATH}?{query}"), 422).field == query.partition("=")[0]


def test_search(client, submit):
    job_id = submit()["id"]
    ended(client, job_id)
    found = FoundPageOut.model_validate(client.get(f"{PATH}/search", params={"q": "w2 w1"}).json())
    assert [hit.id for hit in found.data] == [job_id]
    assert "«" in found.data[0].excerpt
    for query in ("w99", "w1 w99", "-", "'", '"', "w1 & ! |", "*", "(w1", "NEAR(", "a\\", "w1 *", "''"):
        reply = client.get(f"{PATH}/search", params={"q": query})
        assert reply.status_code == 200, (query, reply.text)
    for query in ("", "x" * 501, "a\0"):
        assert error_of(client.get(f"{PATH}/search", params={"q": query}), 422).field == "q"


def test_cancelled_then_tried_again_then_over(client, submit, engine):
    engine.hold()
    job_id = submit()["id"]
    assert engine.reached.wait(WAIT_S)
    assert client.get(f"{PATH}/{job_id}").json()["status"] == "running"
    for method, tail in (("GET", "result"), ("POST", "retry")):
        assert error_of(client.request(method, f"{PATH}/{job_id}/{tail}"), 409).code == "conflict"
    assert client.post(f"{PATH}/{job_id}/cancel").json()["cancel_requested"] is True
    assert ended(client, job_id)["status"] == "cancelled"
    engine.free.set()
    assert error_of(client.post(f"{PATH}/{job_id}/cancel"), 409).code == "conflict"
    again = client.post(f"{PATH}/{job_id}/retry")
    assert again.status_code == 202
    # A worker may be quicker than the reply.
    assert again.json()["status"] in ("queued", "running", "completed")
    assert ended(client, job_id)["status"] == "completed"
    assert error_of(client.post(f"{PATH}/{job_id}/cancel"), 409).code == "conflict"


def test_erased_while_it_is_worked_on(client, submit, engine):
    engine.hold()
    job_id = submit()["id"]
    assert engine.reached.wait(WAIT_S)
    assert client.delete(f"{PATH}/{job_id}").status_code == 204
    engine.free.set()
    assert client.get(f"{PATH}/{job_id}").status_code == 404
    assert client.delete(f"{PATH}/{job_id}").status_code == 404


def test_a_broken_recording_fails_and_says_why(client):
    job_id = client.post(f"{PATH}?mode=async", content=b"no audio at all").json()["id"]
    told = JobOut.model_validate(ended(client, job_id))
    assert told.error
    assert (told.status, told.error.code, told.error.retryable) == ("failed", "audio_unreadable", False)


def test_the_database_away_is_503_and_leaves_nothing(client, server):
    server.house.database.refuse("the database is away")
    try:
        for reply in (
            client.post(f"{PATH}?mode=async", content=CLIP),
            client.get(PATH),
            client.get(f"{PATH}/tr_{'0' * 32}/events"),
            client.post(BATCHES, files=[("file", CLIP)]),
        ):
            assert error_of(reply, 503).retryable
            assert int(reply.headers["retry-after"]) >= 1
    finally:
        server.house.database.refuse(None)
    assert client.get(PATH).json()["data"] == []
    assert not list(server.temp_dir.glob("upload-*"))


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (Unavailable("the store does not answer", retry_after_s=5.0), 503, "unavailable"),
        (StorageFull("there is no room left where this should be stored"), 507, "storage_full"),
    ],
    ids=str,
)
def test_a_store_that_takes_nothing_is_told_and_leaves_nothing(client, server, problem, status, code):
    headers = {"Idempotency-Key": code}
    form = {"data": {"mode": "async"}, "files": {"file": CLIP}}
    server.blobs.failing = problem
    try:
        for path in (PATH, BATCHES):
            fields = form if path == PATH else {"files": [("file", CLIP), ("file", DICKENS.read_bytes())]}
            reply = client.post(path, **fields, headers=headers)
            assert error_of(reply, status).code == code
            assert ("retry-after" in reply.headers) == (status == 503)
        assert client.get(PATH).json()["data"] == []
        assert not list(server.temp_dir.glob("upload-*"))
        accepted = client.post(PATH, json={"mode": "async", "url": "https://talks.invalid/a.mp3"})
        assert accepted.status_code == 202  # nothing is stored for it yet
    finally:
        server.blobs.failing = None
    made = client.post(PATH, **form, headers=headers)
    assert (made.status_code, made.headers.get("idempotent-replayed")) == (202, None)
    assert ended(client, made.json()["id"])["status"] == "completed"


Told = tuple[str | None, str, dict[str, Any]]


def sse(text: str) -> list[Told]:
    """id, type and data of each event, comments left out."""
    found = []
    for frame in text.split("\n\n"):
        lines = [line for line in frame.splitlines() if line and not line.startswith(":")]
        if fields := dict(line.split(": ", 1) for line in lines):
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def segments_told(events: list[Told]) -> list[dict[str, Any]]:
    return [segment for _, _, data in events for segment in data.get("segments") or []]


def test_events_bring_the_text_as_it_comes_and_go_on_where_a_client_was_cut_off(client, submit):
    job_id = submit(DICKENS.read_bytes())["id"]
    path = f"{PATH}/{job_id}/events"
    reply = client.get(path)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = sse(reply.text)
    stored = [(number, kind) for number, kind, _ in events if number is not None]
    kinds = [kind.removeprefix("transcription.") for _, kind in stored]
    assert kinds == ["queued", "chunk", "completed"]
    assert {kind for number, kind, _ in events if number is None} <= {"progress"}
    for _, kind, data in events:
        (ProgressOut if kind == "progress" else EventOut).model_validate(data)
    whole = client.get(f"{PATH}/{job_id}").json()["segments"]
    assert segments_told(events) == whole
    assert segments_told(sse(client.get(path).text)) == whole  # once it is over, from the result
    rest = sse(client.get(path, headers={"Last-Event-ID": stored[0][0]}).text)
    assert [(number, kind) for number, kind, _ in rest if number] == stored[1:]
    assert client.get(path, headers={"Last-Event-ID": stored[-1][0]}).status_code == 204


def test_who_was_cut_off_long_ago_gets_the_text_anew(client, server, submit):
    job_id = submit(DICKENS.read_bytes())["id"]
    path = f"{PATH}/{job_id}/events"
    queued, chunk, completed = (number for number, _, _ in sse(client.get(path).text) if number is not None)
    whole = client.get(f"{PATH}/{job_id}").json()["segments"]
    old = OldNews(
        database=server.house.database,
        events_s=DAY_S,
        deliveries_s=DAY_S,
        clock=lambda: time.time() + 2 * DAY_S,
    )
    assert server.run(old.forget()).jobs >= 1

    def told(last: str | None) -> list[Told]:
        headers = {} if last is None else {"Last-Event-ID": last}
        return [one for one in sse(client.get(path, headers=headers).text) if one[1] != "progress"]

    from_the_beginning = told(None)
    assert [number for number, _, _ in from_the_beginning] == [queued, completed]
    assert [number for number, _, _ in told(queued)] == [completed]
    assert segments_told(from_the_beginning) == segments_told(told(queued)) == whole
    anew, end = told(chunk)  # whose event is gone: nobody knows how much of the text came with it
    assert (anew[:2], anew[2]["chunk"], anew[2]["segments"]) == ((None, "transcription.chunk"), 0, whole)
    assert (end[:2], end[2]["segments"]) == ((completed, "transcription.completed"), [])
    EventOut.model_validate(anew[2])
    assert client.get(path, headers={"Last-Event-ID": completed}).status_code == 204


def test_a_watcher_who_leaves_changes_nothing(client, submit, engine):
    engine.hold()
    job_id = submit()["id"]
    with client.stream("GET", f"{PATH}/{job_id}/events") as stream:
        lines = stream.iter_lines()
        assert any(line.startswith("event: transcription.queued") for line in lines)
        assert any(line.startswith(": ping") for line in lines)
    engine.free.set()
    assert ended(client, job_id)["status"] == "completed"


@pytest.mark.parametrize("value", ["abc", "-1", "9" * 19, "9" * 30, "1.5"])
def test_ids_of_events_are_checked(client, submit, value):
    reply = client.get(f"{PATH}/{submit()['id']}/events", headers={"Last-Event-ID": value})
    assert error_of(reply, 422).field == "Last-Event-ID"


BATCHES = "/v1/batches"


def test_a_batch_of_files_one_of_them_empty(client, engine):
    engine.hold()
    reply = client.post(
        BATCHES,
        data={"metadata": '{"mine": 1}', "priority": "low"},
        files=[
            ("file", ("a.wav", CLIP)),
            ("file", ("b.wav", b"")),
            ("file", ("c.wav", DICKENS.read_bytes())),
        ],
    )
    assert reply.status_code == 202
    made = BatchWithItemsOut.model_validate(reply.json())
    assert reply.headers["location"] == f"{BATCHES}/{made.id}"
    shown = [(item.index, item.filename, item.priority) for item in made.items]
    assert shown == [(0, "a.wav", "low"), (2, "c.wav", "low")]
    assert [(item.index, item.code) for item in made.refused] == [(1, "audio_empty")]
    assert (made.metadata, made.size, made.partial_failure) == ({"mine": 1}, 3, True)
    engine.free.set()
    for item in made.items:
        assert ended(client, item.id)["batch_id"] == made.id
    told = BatchWithItemsOut.model_validate(client.get(f"{BATCHES}/{made.id}").json())
    assert (told.status, told.counts.completed, told.counts.refused) == ("completed", 2, 1)
    listed = client.get(PATH, params={"batch_id": made.id}).json()["data"]
    assert {job["id"] for job in listed} == {item.id for item in told.items}
    assert client.delete(f"{BATCHES}/{made.id}").status_code == 204
    assert client.get(f"{BATCHES}/{made.id}").status_code == 404
    assert client.get(PATH).json()["data"] == []


def test_a_batch_of_urls_whose_bad_ones_do_not_sink_the_rest(client):
    good = "https://talks.invalid/a/talk.mp3"
    items = [
        {"url": good, "metadata": {"n": 0}},
        {"url": "http://127.0.0.1/"},
        {"url": good, "wrds": True},
        {"url": good, "model": "nope"},
        {"language": "en"},
        7,
        {"url": good, "priority": "high", "words": True},
    ]
    reply = client.post(BATCHES, json={"items": items, "language": "en", "priority": "low"})
    made = BatchWithItemsOut.model_validate(reply.json())
    shown = [(item.index, item.filename, item.priority) for item in made.items]
    assert shown == [(0, "talk.mp3", "low"), (6, "talk.mp3", "high")]
    assert made.items[0].metadata == {"n": 0}
    assert [(item.index, item.code, item.field) for item in made.refused] == [
        (1, "url_refused", "url"),
        (2, "unsupported_option", "wrds"),
        (3, "model_not_found", "model"),
        (4, "invalid_request", "url"),
        (5, "invalid_request", "items"),
    ]
    page = client.get(f"{BATCHES}/{made.id}", params={"limit": 1}).json()
    rest = client.get(f"{BATCHES}/{made.id}", params={"cursor": page["next_cursor"]}).json()
    assert [item["index"] for item in page["items"] + rest["items"]] == [0, 6]
    assert rest["next_cursor"] is None


def uploaded(client, data: bytes, filename: str, length: int | None = None) -> str:
    """Its id."""
    piece = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    about = {"Upload-Length": str(length or len(data)), "Upload-Metadata": f"filename {filename}"}
    reply = client.post("/v1/uploads", headers=piece | about, content=data)
    assert reply.status_code == 201, reply.text
    return str(reply.headers["location"].rpartition("/")[2])


def test_a_batch_of_uploads_in_pieces(client):
    name = base64.b64encode(b"talk.wav").decode()
    whole, half = uploaded(client, CLIP, name), uploaded(client, CLIP, name, 2 * len(CLIP))
    items = [
        {"upload_id": whole, "words": True},
        {"upload_id": half},
        {"upload_id": "up_" + "0" * 32},
        {"upload_id": whole, "url": "https://talks.invalid/a.mp3"},
        {"upload_id": whole, "wrds": True},
    ]
    body = {"items": items, "keep_audio_s": 0, "keep_text_s": 3600}
    reply = client.post(BATCHES, json=body, headers={"Idempotency-Key": "uploads"})
    assert reply.status_code == 202, reply.text
    made = BatchWithItemsOut.model_validate(reply.json())
    assert [(item.index, item.filename) for item in made.items] == [(0, "talk.wav")]
    assert [(item.index, item.code, item.field) for item in made.refused] == [
        (1, "conflict", "upload_id"),
        (2, "not_found", None),
        (3, "invalid_request", "upload_id"),
        (4, "unsupported_option", "wrds"),
    ]
    again = client.post(BATCHES, json=body, headers={"Idempotency-Key": "uploads"})
    assert again.json()["id"] == made.id
    done = ended(client, made.items[0].id)
    assert (done["status"], done["batch_id"]) == ("completed", made.id)


def test_what_a_batch_says_about_keeping_holds_for_its_items(client, server):
    shared = {"keep_audio_s": "5", "keep_text_s": "60"}
    form = client.post(BATCHES, data=shared, files=[("file", CLIP)]).json()
    own = {"items": [{"url": "https://talks.invalid/a.mp3", "keep_text_s": 7}], "keep_text_s": 60}
    listed = client.post(BATCHES, json=own).json()
    kept = []
    for batch in (form, listed):
        view = server.run(server.house.jobs.show(OWNER, batch["items"][0]["id"], whole=False))
        kept.append((view.job.retention.audio_s, view.job.retention.text_s))
    assert kept == [(5.0, 60.0), (None, 7.0)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": 3}, "items"),
        ({"items": [{}] * 1001}, "items"),
        ({"items": [{}], "task": "sing"}, "task"),
        ({"items": [{}], "mode": "sync"}, "mode"),
        ({"items": [{}], "url": "https://example.org"}, "url"),
        ({"items": [{}], "timeout_s": 5}, "timeout_s"),
        ({"items": [{}], "upload_id": "up_1"}, "upload_id"),
    ],
)
def test_what_is_wrong_for_all_is_refused(client, body, field):
    assert error_of(client.post(BATCHES, json=body), 422).field == field


def test_a_batch_is_made_once_for_its_key(client):
    headers = {"Idempotency-Key": "batch"}
    files = [("file", CLIP), ("file", b"")]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: client.post(BATCHES, files=files, headers=headers), range(4)))
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert {len(reply.json()["refused"]) for reply in replies} == {1}
    assert len(client.get(PATH).json()["data"]) == 1
    other = client.post(BATCHES, files=files[:1], headers=headers)
    assert error_of(other, 409).field == "Idempotency-Key"
    listed = BatchPageOut.model_validate(client.get(BATCHES).json())
    assert replies[0].json()["id"] in [batch.id for batch in listed.data]


@pytest.mark.parametrize("batch_id", ["bat_" + "0" * 32, "nonsense", "%00"])
def test_unknown_batches_are_not_found(client, batch_id):
    for method in ("GET", "DELETE"):
        assert error_of(client.request(method, f"{BATCHES}/{batch_id}"), 404).code == "not_found"


def test_everything_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {PATH, f"{PATH}/{{transcription_id}}/events", BATCHES} <= set(paths)
    assert {"202", "409", "507"} <= set(paths[PATH]["post"]["responses"])
