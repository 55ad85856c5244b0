"""What our own surface takes and gives, as pydantic classes. The option class also checks what arrives;
the answers are documentation, which a test compares with what is really sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from voiceforge.api.native.stored_text import json_object, storable
from voiceforge.speech.options import ChannelMode, RawEncoding, Task

StoredText = Annotated[str, AfterValidator(storable)]
Mode = Literal["sync", "async"]
PriorityName = Literal["low", "normal", "high"]
Metadata = Annotated[dict[str, Any], BeforeValidator(json_object)]


def split_at_commas(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [term.strip() for item in value for term in item.split(",") if term.strip()]
    return value


class Options(BaseModel):
    """The options of `POST /v1/transcriptions`, in the query, the form or the JSON body. Unknown names are
    refused: a misspelt wish must not be dropped in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(
        None, max_length=200, description="Model id or alias; absent: the default model."
    )
    language: StoredText | None = Field(
        None, max_length=40, description="ISO 639-1 code of what is spoken; absent: detect."
    )
    task: Task = Field("transcribe", description="`translate` gives English text, where the model can.")
    words: bool = Field(False, description="Also give the time of every word.")
    channels: ChannelMode = Field("mix", description="`split` transcribes each channel by itself.")
    prompt: StoredText | None = Field(
        None, description="Text that precedes the recording, to set names and style."
    )
    keyterm: Annotated[list[StoredText], BeforeValidator(split_at_commas)] = Field(
        [], max_length=1000, description="Names and terms to expect; repeat it, or separate with commas."
    )
    temperature: float | None = Field(None, ge=0, le=1, description="Sampling temperature.")
    beam_size: int | None = Field(None, ge=1, le=20, description="Beams searched, where the model can.")
    vad_threshold: float | None = Field(None, gt=0, lt=1, description="Speech probability that is speech.")
    min_speech_ms: int | None = Field(None, ge=0, le=10_000, description="Shorter speech is dropped.")
    min_silence_ms: int | None = Field(
        None, ge=0, le=10_000, description="Shorter pauses do not part speech."
    )
    padding_ms: int | None = Field(None, ge=0, le=10_000, description="Audio kept on either side of speech.")
    encoding: RawEncoding | None = Field(
        None,
        description="The recording is headerless PCM in this encoding.",
    )
    sample_rate: int | None = Field(
        None, ge=4_000, le=384_000, description="Of headerless PCM; absent: 16000."
    )
    input_channels: int | None = Field(None, ge=1, le=32, description="Of headerless PCM; absent: 1.")
    format: str | None = Field(
        None,
        max_length=40,
        description="json, verbose_json, txt, srt, vtt or tsv; absent: what `Accept` names, else json.",
    )
    timeout_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="Give up, with 504, when recognition is not done so many seconds after it could begin.",
    )
    mode: Mode = Field(
        "sync", description="`sync` answers with the transcript, `async` at once with a job to ask after."
    )
    url: str | None = Field(
        None, max_length=8192, description="Where to fetch the recording (form and JSON bodies only)."
    )
    priority: PriorityName | None = Field(None, description="Of a job; absent: normal.")
    callback_url: str | None = Field(
        None, max_length=8192, description="Is told of what becomes of the job (form and JSON bodies only)."
    )
    metadata: Metadata | None = Field(
        None, description="A JSON object of yours that comes back with the job; up to 16 KiB."
    )
    upload_id: str | None = Field(
        None, max_length=40, description="A finished upload of `/v1/uploads`, in place of a file."
    )
    retention: Literal["none"] | None = Field(
        None,
        description="`none`: nothing is kept. The recording stays in memory, and no result serves others; of "
        "a job, audio goes at its end and text soon after.",
    )
    keep_audio_s: float | None = Field(
        None, ge=0, description="Seconds after its end until the audio of a job is erased."
    )
    keep_text_s: float | None = Field(None, ge=0, description="Likewise its text.")


class WordOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    word: str
    start: float
    end: float
    confidence: float | None
    estimated: bool = Field(description="The times lie between its neighbours' rather than being measured.")
    speaker: str | None = None


class SegmentOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: int
    start: float
    end: float
    text: str
    avg_logprob: float | None
    no_speech_prob: float | None
    words: list[WordOut]
    channel: int | None = None
    speaker: str | None = None


class GapOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    start: float
    end: float
    reason: Literal["no_text", "removed"]


class CoverageOut(BaseModel):
    """How much of the detected speech became text, in seconds; `gaps` have speech and no text."""

    model_config = ConfigDict(extra="forbid")

    speech_s: float
    transcribed_s: float
    gaps: list[GapOut]


class RemovedOut(BaseModel):
    """Text the engine produced and we took out."""

    model_config = ConfigDict(extra="forbid")

    start: float
    end: float
    text: str
    reason: str


class WarningOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str
    message: str


class ModelRefOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    revision: str


class TranscriptOut(BaseModel):
    """The native result. All times in seconds from the start of the recording."""

    model_config = ConfigDict(extra="forbid")

    text: str
    task: Task
    language: str | None
    language_probability: float | None
    duration: float
    segments: list[SegmentOut]
    words: list[WordOut]
    channels: int
    coverage: CoverageOut
    removed: list[RemovedOut]
    warnings: list[WarningOut]
    model: ModelRefOut
    processing_s: float
    rtf: float = Field(description="processing_s / duration.")
    cache_hit: bool = Field(description="Made for an earlier, identical request.")
    cached_at: str | None = Field(description="When that was, ISO 8601 in UTC.")


class PlainOut(BaseModel):
    """What `POST /transcribe` answers."""

    text: str
    language: str | None
    duration: float
    processing_s: float
    rtf: float


class ErrorDetail(BaseModel):
    code: str = Field(description="For programs; stable.")
    message: str = Field(description="For people.")
    kind: str = Field(description="The family of the code; it decides the HTTP status.")
    field: str | None = Field(description="The option at fault, if one is.")
    choices: list[str] = Field(description="What the option accepts, if that is a short list.")
    retryable: bool = Field(description="The same request may succeed later.")
    request_id: str = Field(description="The `X-Request-ID` of this reply; the server's log has it too.")


class ErrorOut(BaseModel):
    error: ErrorDetail


class CheckOut(BaseModel):
    name: str
    status: Literal["ok", "degraded", "failed"]
    detail: str
    data: dict[str, Any]


class HealthOut(BaseModel):
    status: Literal["ok", "degraded", "failed"]
    version: str
    uptime_s: float
    checks: list[CheckOut]


class ServiceOut(BaseModel):
    name: str
    version: str
    links: dict[str, str]


class ReloadOut(BaseModel):
    id: str
    revision: str = Field(description="Of the files that are in memory now.")


class CacheStatsOut(BaseModel):
    """Of all look-ups since the start."""

    hits: int
    misses: int
    shared: int = Field(description="Joined an identical request in progress.")
    hit_rate: float | None = Field(description="hits / all; null before the first.")
    entries: int | None = Field(description="Kept in this server's memory; null where Redis keeps them.")
    bytes: int | None


class CacheClearedOut(BaseModel):
    removed: int = Field(description="Results that are no longer kept.")


class StatsOut(BaseModel):
    version: str
    uptime_s: float
    requests: int
    requests_in_flight: int
    errors: int
    audio_seconds: float
    queue_depth: int = Field(description="Windows of audio waiting for a model.")
    models_loaded: list[str]
    cache: CacheStatsOut | None = Field(description="Null where nothing is kept.")
