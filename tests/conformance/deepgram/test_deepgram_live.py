"""Live speech through the embedded engine, as Deepgram's SDKs and plain sockets bring and read it."""

import hashlib
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SAID = "ever failed"
LINEAR = {"encoding": "linear16", "sample_rate": 16_000}


def results(told):
    return [one for one in told if one["type"] == "Results"]


def finals(told):
    return [one for one in results(told) if one["is_final"]]


def text_of(told):
    texts = (one["channel"]["alternatives"][0]["transcript"] for one in finals(told))
    return " ".join(filter(None, texts))


def bare(text):
    return re.sub(r"[^\w ]", "", text.lower())


def talk(door, query, *frames):
    """What a plain client is told, and how the socket closed."""
    told = []
    headers = {"Authorization": f"Token {door.key}"}
    url = f"{door.url.replace('http', 'ws', 1)}/v1/listen?{query}"
    with connect(url, additional_headers=headers) as socket:
        try:
            for frame in (*frames, '{"type": "CloseStream"}'):
                socket.send(frame)
            while True:
                told.append(json.loads(socket.recv(timeout=60)))
        except ConnectionClosed as closed:
            return told, closed.rcvd.code, closed.rcvd.reason


def cut(data, size=16_000):
    return [data[start : start + size] for start in range(0, len(data), size)]


def encoded(path, fmt, subtype, rate=None):
    samples, own_rate = soundfile.read(path, dtype="float32")
    if rate is not None:
        samples, own_rate = samples[:: own_rate // rate], rate
    file = io.BytesIO()
    soundfile.write(file, samples, own_rate, format=fmt, subtype=subtype)
    return file.getvalue()


def test_a_recording_spoken_live(sdk, beckett):
    said = sdk.pcm(beckett)
    made = sdk.live(
        sdk.audio(said, 3200),
        ["CloseStream"],
        ["end"],
        model="nova-3",
        interim_results=True,
        punctuate=True,
        vad_events=True,
        utterance_end_ms=1000,
        **LINEAR,
    )
    assert made["errors"] == []
    assert made["code"] == 1000
    told = made["told"]
    assert SAID in bare(text_of(told))
    metadata = told[-1]
    assert metadata["type"] == "Metadata"
    assert metadata["sha256"] == hashlib.sha256(said).hexdigest()
    assert metadata["duration"] == pytest.approx(len(said) / 32_000, abs=0.01)
    assert {"SpeechStarted", "Results", "Metadata"} <= {one["type"] for one in told}
    frozen = finals(told)
    assert all(a["start"] + a["duration"] <= b["start"] + 0.001 for a, b in pairwise(frozen))
    words = [word for one in frozen for word in one["channel"]["alternatives"][0]["words"]]
    assert all(0 <= word["start"] <= word["end"] <= metadata["duration"] + 0.001 for word in words)
    assert all(a["start"] <= b["start"] for a, b in pairwise(words))
    starts = {one["start"] for one in frozen}
    assert all(one["start"] in starts for one in results(told) if not one["is_final"])


def test_finalize_in_the_middle_of_speech_and_on(sdk, beckett):
    said = sdk.pcm(beckett)
    middle = 5 * 32_000
    made = sdk.live(
        sdk.audio(said[:middle], 3200),
        ["Finalize"],
        ["await", {"from_finalize": True}],
        sdk.audio(said[middle:], 3200),
        ["Finalize"],
        ["await", {"from_finalize": True}, 2],
        ["CloseStream"],
        ["end"],
        model="nova-3",
        **LINEAR,
    )
    assert made["errors"] == []
    answers = [one for one in results(made["told"]) if one["from_finalize"]]
    assert len(answers) == 2
    assert answers[0]["start"] + answers[0]["duration"] <= 5.01
    assert SAID in bare(text_of(made["told"]))
    assert made["code"] == 1000


def test_silence_says_nothing(sdk):
    made = sdk.live(
        sdk.audio(bytes(3 * 32_000)),
        ["Finalize"],
        ["await", {"from_finalize": True}],
        ["CloseStream"],
        ["end"],
        model="nova-3",
        interim_results=True,
        **LINEAR,
    )
    assert text_of(made["told"]) == ""
    assert not any(one["speech_final"] for one in results(made["told"]))
    assert made["told"][-1]["type"] == "Metadata"


@pytest.mark.parametrize(
    ("query", "fmt", "subtype", "rate"),
    [
        ("", "WAV", "PCM_16", None),
        ("", "OGG", "OPUS", None),
        ("encoding=flac", "FLAC", "PCM_16", None),
        ("encoding=ogg-opus", "OGG", "OPUS", None),
        ("encoding=mulaw&sample_rate=8000", "RAW", "ULAW", 8000),
        ("encoding=alaw&sample_rate=8000", "RAW", "ALAW", 8000),
        ("encoding=linear32&sample_rate=16000", "RAW", "FLOAT", None),
    ],
)
def test_encodings(door, beckett, query, fmt, subtype, rate):
    told, code, reason = talk(door, query, *cut(encoded(beckett, fmt, subtype, rate)))
    assert (code, reason) == (1000, "")
    assert "failed" in text_of(told)
    assert told[-1]["duration"] == pytest.approx(9.96, abs=0.1)


def test_channels_stay_apart(door, beckett):
    left, _ = soundfile.read(beckett, dtype="int16")
    both = np.stack([left, np.zeros_like(left)], axis=1).tobytes()
    query = "encoding=linear16&sample_rate=16000&channels=2&multichannel=true"
    told, code, _ = talk(door, query, *cut(both, 32_000))
    assert code == 1000
    assert told[-1]["channels"] == 2
    spoken = {tuple(one["channel_index"]) for one in finals(told) if text_of([one])}
    assert spoken == {(0, 2)}


def test_without_endpointing_nothing_is_an_endpoint(door, beckett):
    samples, _ = soundfile.read(beckett, dtype="int16")
    query = "encoding=linear16&sample_rate=16000&endpointing=false"
    told, _, _ = talk(door, query, *cut(samples.tobytes()))
    assert SAID in text_of(told)
    assert not any(one["speech_final"] for one in results(told))


@pytest.mark.parametrize("query", ["", "encoding=flac"])
def test_what_is_no_audio_closes_with_data_0000(door, query):
    told, code, reason = talk(door, query, *cut(b"this is a letter, no recording. " * 4000))
    assert code == 1008
    assert reason.startswith("DATA-0000")
    assert text_of(told) == ""


def test_an_odd_number_of_bytes(door, beckett):
    samples, _ = soundfile.read(beckett, dtype="int16")
    query = "encoding=linear16&sample_rate=16000"
    told, code, _ = talk(door, query, *cut(samples.tobytes(), 3333), b"x")
    assert code == 1000
    assert SAID in text_of(told)


def test_ten_thousand_frames_of_a_byte(door, beckett):
    samples, _ = soundfile.read(beckett, dtype="int16")
    said = samples.tobytes()
    query = "encoding=linear16&sample_rate=16000"
    told, code, _ = talk(door, query, *cut(said[:10_000], 1), *cut(said[10_000:]))
    assert code == 1000
    assert SAID in text_of(told)


def test_a_model_that_is_not_there_is_refused_before_the_upgrade(sdk):
    made = sdk.live(["CloseStream"], model="no-such-model")
    assert made == {"status": 400}
