"""The fields OpenAI's clients send and the documents they read, as pydantic classes.

The request classes check what arrives and document it; the answers are documentation and the last word on
their shape. Keys beginning with `x_` are ours: OpenAI's clients keep them as plain attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
TranslationFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]
Include = Literal["logprobs"]


def _chunking_from_text(value: Any) -> Any:
    """A form brings the object as `chunking_strategy[type]=…` fields, or whole, as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return json.loads(value)
    return value


class ServerVad(BaseModel):
    """How the audio is cut at pauses."""

    model_config = ConfigDict(allow_inf_nan=False)

    type: Literal["server_vad"] = "server_vad"
    threshold: float | None = Field(
        None, gt=0, lt=1, description="Speech probability that counts as speech; higher for noisy rooms."
    )
    prefix_padding_ms: int | None = Field(None, ge=0, le=10_000, description="Audio kept around speech.")
    silence_duration_ms: int | None = Field(None, ge=0, le=10_000, description="Pause that ends a stretch.")


class TranslationFields(BaseModel):
    """`POST /v1/audio/translations`; unknown fields are ignored, as OpenAI's own server does."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = Field(
        None, max_length=200, description="Model id, or one of OpenAI's ids; absent: the default model."
    )
    prompt: str | None = Field(None, description="Text that precedes the recording, in its language.")
    response_format: TranslationFormat = Field("json", description="Shape of the answer.")
    temperature: float | None = Field(
        None, ge=0, le=1, description="Sampling temperature; 0 leaves the choice to the engine."
    )


class TranscriptionFields(BaseModel):
    """`POST /v1/audio/transcriptions`; lists may be named with or without `[]`."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = Field(
        None, max_length=200, description="Model id, or one of OpenAI's ids; absent: the default model."
    )
    language: str | None = Field(
        None, max_length=40, description="ISO 639-1 code; names and tags (`en-US`) are understood."
    )
    languages: list[str] = Field([], description="Languages to expect; one fixes it, several leave it open.")
    prompt: str | None = Field(None, description="Text that precedes the recording, in its language.")
    keywords: list[str] = Field([], max_length=1000, description="Names and terms to expect.")
    response_format: ResponseFormat = Field("json", description="Shape of the answer.")
    temperature: float | None = Field(
        None, ge=0, le=1, description="Sampling temperature; 0 leaves the choice to the engine."
    )
    timestamp_granularities: list[Granularity] = Field(
        [], description="What `verbose_json` lists; segments when nothing is named."
    )
    include: list[Include] = Field(
        [], description="`logprobs` is accepted; this server has none per token and says so in `x_warnings`."
    )
    stream: bool = Field(False, description="Send server-sent events while the recording is decoded.")
    chunking_strategy: Annotated[Literal["auto"] | ServerVad | None, BeforeValidator(_chunking_from_text)] = (
        Field(None, description="`auto`, or `chunking_strategy[type]=server_vad` with its thresholds.")
    )
    known_speaker_names: list[str] = Field([], description="Not supported yet.")
    known_speaker_references: list[str] = Field([], description="Not supported yet.")


class DurationUsage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: float


class DetectedLanguage(BaseModel):
    code: str


class Warned(BaseModel):
    """Something the caller should know that is no error."""

    code: str
    message: str


class UncoveredSpeech(BaseModel):
    start: float
    end: float
    reason: str


class CoverageOut(BaseModel):
    """How much of the detected speech became text, in seconds."""

    speech_s: float
    transcribed_s: float
    gaps: list[UncoveredSpeech]


class JsonOut(BaseModel):
    text: str
    languages: list[DetectedLanguage]
    usage: DurationUsage
    x_warnings: list[Warned]


class SegmentOut(BaseModel):
    id: int
    seek: int = Field(description="Start in hundredths of a second.")
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class WordOut(BaseModel):
    word: str
    start: float
    end: float
    confidence: float | None = Field(None, description="Ours: probability, where the engine gives one.")
    estimated: bool = Field(False, description="Ours: the times lie between its neighbours'.")


class VerboseOut(BaseModel):
    task: Literal["transcribe", "translate"]
    language: str = Field(description="English name of the language.")
    duration: float
    text: str
    segments: list[SegmentOut] | None = None
    words: list[WordOut] | None = None
    usage: DurationUsage
    x_model: str
    x_coverage: CoverageOut
    x_warnings: list[Warned]


class TextDelta(BaseModel):
    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class InputTokens(BaseModel):
    audio_tokens: int = 0
    text_tokens: int = 0


class StreamUsage(BaseModel):
    """OpenAI's clients know this event's usage only in tokens. Nothing is billed by tokens here, so those
    are 0; the length of the recording stands beside them."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_token_details: InputTokens = InputTokens()
    seconds: float


class TextDone(BaseModel):
    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: list[DetectedLanguage]
    usage: StreamUsage
    x_warnings: list[Warned]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(BaseModel):
    error: ErrorDetail


class ModelOut(BaseModel):
    """OpenAI's four keys, and what we know besides."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    title: str
    family: str
    runtime: str
    languages: list[str]
    size_bytes: int | None
    licence: str
    revision: str
    installed: bool
    loaded: bool
    capabilities: Mapping[str, Any] | None
    hint: str | None = Field(description="What to do when it is not installed.")


class ModelsOut(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]
