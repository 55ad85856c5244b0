"""The `openai` client of before, 1.x: its beta of the Realtime API, in a process of its own."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

ROOT = Path(__file__).resolve().parents[3]
DRIVER = Path(__file__).parent / "realtime_driver.py"
CLIENT = ROOT / ".make" / "openai1"
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


@pytest.fixture(scope="module")
def old_client():
    if not CLIENT.is_dir():
        pytest.skip("`make test` installs the older client")
    paths = [str(CLIENT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def ask(old_client, door):
    def asked(do, **job):
        print(
            json.dumps({"do": do, "url": door.url, "key": door.key, **job}), file=old_client.stdin, flush=True
        )
        answer = json.loads(old_client.stdout.readline())
        assert answer["version"].startswith("1.")
        return answer

    return asked


@pytest.fixture(scope="module")
def speech(beckett):
    """16-bit, 24 kHz, with a second of silence at its end."""
    samples, rate = soundfile.read(beckett, dtype="float32")
    samples = np.concatenate([soxr.resample(samples, rate, 24_000), np.zeros(24_000, np.float32)])
    return base64.b64encode((samples * 32767).astype("<i2").tobytes()).decode()


def test_detected_turns(ask, speech):
    answer = ask(
        "live",
        model="gpt-4o-realtime-preview",
        session={
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        },
        audio=speech,
        piece=9_600,
        until=[COMPLETED, 1],
    )
    events = answer["answer"]
    assert [event["type"] for event in events[:2]] == ["session.created", "transcription_session.updated"]
    assert events[0]["class"] == "SessionCreatedEvent"
    assert events[1]["class"] == "TranscriptionSessionUpdatedEvent"
    assert events[-1]["class"] == "ConversationItemInputAudioTranscriptionCompletedEvent"
    item = events[-1]["item_id"]
    summed = "".join(
        event["delta"] for event in events if event["type"] == DELTA and event["item_id"] == item
    )
    assert summed == events[-1]["transcript"]
    assert "tried" in summed.lower()
    # What it does not know it takes for this one.
    assert "ConversationCreatedEvent" not in {event["class"] for event in events}


def test_committed_turns(ask, speech):
    answer = ask(
        "live",
        model="gpt-4o-realtime-preview",
        session={"turn_detection": None},
        audio=speech,
        piece=48_000,
        commit=True,
        until=[COMPLETED, 1],
    )
    events = answer["answer"]
    assert "fail better" in events[-1]["transcript"].lower()
    assert not any(event["type"].startswith("input_audio_buffer.speech") for event in events)
    assert "conversation.item.created" in [event["type"] for event in events]


def test_its_secret_opens_a_session(ask, speech):
    made = ask("secret", session={"input_audio_transcription": {"language": "en"}, "turn_detection": None})[
        "answer"
    ]
    answer = ask(
        "live",
        key=made["value"],
        model="gpt-4o-realtime-preview",
        audio="",
        piece=1,
        until=["session.created", 1],
    )
    [created] = answer["answer"]
    assert created["session"]["turn_detection"] is None
    assert created["session"]["input_audio_transcription"]["language"] == "en"


def test_a_wrong_key(ask):
    answer = ask("live", key="wrong", model="gpt-4o-realtime-preview", audio="", piece=1, until=["x", 1])
    assert "401" in answer["crashed"]
