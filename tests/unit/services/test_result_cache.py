"""Which requests may share a result, and what comes back of what was kept."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.errors import Unavailable
from voiceforge.infra.cache.base import CacheKey, CacheSize, CacheUnreachable
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.services.access import trusted
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.result_codec import ResultCodec, UnreadableResult
from voiceforge.speech.options import AudioLimits, RawFormat, TranscribeOptions, VadOptions
from voiceforge.speech.pipeline.checkpoints import fingerprint
from voiceforge.speech.transcript import ModelRef, Segment, Transcript
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.scripted_services import spoken

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DIGEST = hashlib.sha256(b"audio").digest()
MODEL = ModelRef("tiny", "1")


def results(cache: Any = None, *, recipe: str = "1.0", max_entry_bytes: int = 1 << 20) -> ResultCache:
    return ResultCache(
        cache if cache is not None else MemoryCache(1 << 22),
        recipe=recipe,
        ttl_s=60,
        max_entry_bytes=max_entry_bytes,
        metrics=Metrics("test"),
        wall_clock=lambda: NOW,
    )


# -- keys

OF_ANOTHER_VALUE: dict[type, Any] = {
    bool: lambda value: not value,
    float: lambda value: value / 2,
    int: lambda value: value + 1,
}
BY_FIELD: dict[tuple[type, str], Any] = {
    (TranscribeOptions, "language"): "de",
    (TranscribeOptions, "task"): "translate",
    (TranscribeOptions, "channels"): "split",
    (TranscribeOptions, "prompt"): "a prompt",
    (TranscribeOptions, "keyterms"): ("term",),
    (TranscribeOptions, "temperature"): 0.25,
    (TranscribeOptions, "beam_size"): 3,
    (TranscribeOptions, "raw"): RawFormat("s16le"),
    (AudioLimits, "max_duration_s"): 5.0,
    (RawFormat, "encoding"): "mulaw",
}


def variants(value: Any) -> list[Any]:
    """The same options with one field changed, for every field there is, however deep."""
    found = []
    for one in dataclasses.fields(value):
        now = getattr(value, one.name)
        if dataclasses.is_dataclass(now):
            changed = variants(now)
        elif (type(value), one.name) in BY_FIELD:
            changed = [BY_FIELD[type(value), one.name]]
        else:
            changed = [OF_ANOTHER_VALUE[type(now)](now)]  # a field of a new kind fails here: a row above
        found += [replace(value, **{one.name: other}) for other in changed]
    return found


@pytest.mark.parametrize("base", [TranscribeOptions(), TranscribeOptions(raw=RawFormat("f32le"))])
def test_a_change_of_any_option_changes_the_key_and_the_fingerprint(
    base: TranscribeOptions,
) -> None:
    cache = results()
    every = [base, *variants(base)]
    fields = sum(len(dataclasses.fields(kind)) for kind in (TranscribeOptions, AudioLimits, VadOptions)) - 2
    assert len(every) >= 1 + fields
    assert len({cache.key("me", DIGEST, MODEL, options) for options in every}) == len(every)
    assert len({fingerprint(options, MODEL, "1") for options in every}) == len(every)


def test_so_does_everything_else_that_matters() -> None:
    plain = TranscribeOptions()
    keys = {
        results().key("me", DIGEST, MODEL, plain),
        results().key("you", DIGEST, MODEL, plain),
        results().key("me", hashlib.sha256(b"other").digest(), MODEL, plain),
        results().key("me", DIGEST, ModelRef("small", "1"), plain),
        results().key("me", DIGEST, ModelRef("tiny", "2"), plain),
        results(recipe="1.1").key("me", DIGEST, MODEL, plain),
    }
    assert len(keys) == 6
    assert results().key("me", DIGEST, MODEL, plain) == results().key("me", DIGEST, MODEL, replace(plain))


SHARED = results()
TEXTS = st.text(max_size=8) | st.sampled_from(["'", "', '", "tiny', '1", ")", "None", "\\"])


@given(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS, TEXTS))
def test_no_two_requests_have_the_same_key(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    def key(parts: tuple[str, ...]) -> CacheKey:
        tenant, model, revision, prompt = parts
        options = TranscribeOptions(prompt=prompt)
        return SHARED.key(tenant, DIGEST, ModelRef(model, revision), options)

    assert (key(one) == key(other)) == (one == other)


def test_keys_tell_nothing_of_what_they_are_made_of() -> None:
    key = results().key("a tenant", DIGEST, MODEL, TranscribeOptions(prompt="a prompt"))
    assert key.partition.isalnum()
    assert key.name.isalnum()
    assert DIGEST.hex() not in key.name
    assert results().key("a tenant", DIGEST, MODEL, TranscribeOptions()).partition == key.partition
    assert results().key("another", DIGEST, MODEL, TranscribeOptions()).partition != key.partition


# -- what is kept

SEGMENTS = st.builds(
    Segment,
    **dict.fromkeys(
        ("avg_logprob", "no_speech_prob", "words", "channel", "speaker", "tokens", "temperature"), ...
    ),
)
TRANSCRIPTS = st.builds(
    Transcript,
    segments=st.lists(SEGMENTS, max_size=3).map(tuple),
    cached_at=st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(fold=0)),
    **dict.fromkeys(("task", "removed", "warnings", "processing_s", "rtf", "channels"), ...),
)
CODEC = ResultCodec()


@settings(max_examples=50, deadline=None)
@given(TRANSCRIPTS)
def test_every_transcript_comes_back_as_it_was(transcript: Transcript) -> None:
    back = CODEC.unpack("key", CODEC.pack("key", transcript))
    # Its repr says everything, and NaN equals NaN in it. UTC has two names there.
    assert repr(back).replace("TzInfo(0)", "datetime.timezone.utc") == repr(transcript)


@pytest.mark.parametrize("segments", [1, 500])
async def test_a_result_comes_back_with_its_time(segments: int) -> None:
    """Short ones on the loop, long ones deflated and in a thread."""
    cache = results()
    transcript = spoken(*["Ever tried, ever failed."] * segments, words=True)
    key = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    assert await cache.find(key) is None
    await cache.keep(key, transcript)
    assert await cache.find(key) == replace(transcript, cached_at=NOW)


async def test_what_is_too_large_is_not_kept() -> None:
    cache = results(max_entry_bytes=100)
    key = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    await cache.keep(key, spoken("Ever tried, ever failed."))
    assert await cache.find(key) is None


PACKED = CODEC.pack("key", spoken("Hello there."))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1",
        b"2" + PACKED[1:],
        PACKED[:-1],
        PACKED[:2] + b"{}",
        PACKED.replace(b'"start":0.0', b'"start":"0"'),
        PACKED.replace(b'"task":"transcribe"', b'"task":"forge"'),
        b"1z" + PACKED[2:],
        b"1zx\x9c\x03\x00\x00\x00\x00\x01",
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    assert CODEC.unpack("key", PACKED) == spoken("Hello there.")
    with pytest.raises(UnreadableResult):
        CODEC.unpack("key", data)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_they_are_refused_or_read(data: bytes) -> None:
    for start in (b"", b"1j", b"1z"):
        with pytest.raises(UnreadableResult):
            CODEC.unpack("key", start + data)


def test_a_result_of_another_key_is_refused() -> None:
    """A connection that has lost its step would otherwise hand one caller's text to another."""
    with pytest.raises(UnreadableResult):
        CODEC.unpack("other", PACKED)


@dataclass
class Broken:
    """A cache that holds one thing under every key, or cannot be reached."""

    value: bytes | None = None
    puts: list[CacheKey] = field(default_factory=list)

    async def get(self, key: CacheKey) -> bytes | None:
        return self.value

    async def put(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        self.puts.append(key)

    async def clear(self, partition: str) -> int:
        raise CacheUnreachable("gone")

    def size(self) -> CacheSize | None:
        return None

    async def close(self) -> None:
        return None


async def test_what_cannot_be_read_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    cache = results(Broken(PACKED))
    assert await cache.find(CacheKey("me", "another key")) is None
    assert "Hello" not in caplog.text


async def test_a_clearing_that_was_not_done_is_told() -> None:
    with pytest.raises(Unavailable) as told:
        await results(Broken()).clear(trusted("me"))
    assert told.value.retryable


# -- documents made of what is kept


@dataclass
class Making:
    """Makes documents, and counts."""

    made: int = 0

    def __call__(self, transcript: Transcript) -> str:
        self.made += 1
        return f"{self.made}: {transcript.text}"


async def test_a_document_is_made_once_for_each_shape() -> None:
    cache, make = results(), Making()
    key = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    assert await cache.find_as(key, "json", make) is None
    await cache.keep(key, spoken("Hello there."))
    assert {await cache.find_as(key, "json", make) for _ in range(3)} == {"1: Hello there."}
    assert await cache.find_as(key, "srt", make) == "2: Hello there."
    assert await cache.find_as(key, "json", make) == "1: Hello there."


async def test_a_document_does_not_outlive_the_result_it_was_made_of() -> None:
    cache, make = results(), Making()
    key = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    await cache.keep(key, spoken("Hello there."))
    assert await cache.find_as(key, "json", make) == "1: Hello there."
    await cache.keep(key, spoken("Good bye."))
    assert await cache.find_as(key, "json", make) == "2: Good bye."
    await cache.clear(trusted("me"))
    assert await cache.find_as(key, "json", make) is None


async def test_long_documents_and_too_many_of_them_are_made_anew() -> None:
    cache, make = results(MemoryCache(1 << 26)), Making()
    long = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    await cache.keep(long, spoken(*(f"{number} bottles" for number in range(2000))))
    for _ in range(2):
        await cache.find_as(long, "json", make)
    assert make.made == 2
    digests = [hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(400)]
    keys = [cache.key("me", digest, MODEL, TranscribeOptions()) for digest in digests]
    for key in keys:
        await cache.keep(key, spoken("Hello there."))
        await cache.find_as(key, "json", make)
    made = make.made
    await cache.find_as(keys[-1], "json", make)
    assert make.made == made
    await cache.find_as(keys[0], "json", make)
    assert make.made == made + 1


async def test_a_result_that_cannot_be_read_makes_no_document() -> None:
    assert await results(Broken(PACKED)).find_as(CacheKey("me", "another key"), "json", Making()) is None


# -- counting


async def test_counts() -> None:
    cache = results()
    assert cache.stats().hit_rate is None
    for outcome in ("miss", "hit", "hit", "shared"):
        cache.count(outcome)  # type: ignore[arg-type]
    key = cache.key("me", DIGEST, MODEL, TranscribeOptions())
    await cache.keep(key, spoken("Hello there."))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.shared, stats.hit_rate) == (2, 1, 1, 0.5)
    assert stats.entries == 1
    assert stats.bytes
    assert await cache.clear(trusted("you")) == 0
    assert await cache.clear(trusted("me")) == 1
    assert (cache.stats().entries, cache.stats().bytes) == (0, 0)


async def test_what_another_server_keeps_is_not_counted_here() -> None:
    assert results(Broken()).stats().entries is None
