"""What Deepgram's clients send in the query, and the documents they read, as pydantic classes.

The query classes check what arrives and document it. Unknown keys are ignored, as Deepgram does: clients send
some that it does not list (`no_delay`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_LACKING = "Refused where it is wished: this server does not have it."
_NOTED = "Accepted and not done; `metadata.warnings` says so."


class Query(BaseModel):
    """What recordings and live streams have in common."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = Field(
        None, max_length=200, description="Model id, or one of Deepgram's names; absent: the default model."
    )
    version: str | None = Field(None, description="Ignored: `model_info` tells the version that was used.")
    language: str | None = Field(
        None, max_length=40, description="BCP-47 tag; `multi`, or absent: detected, where the model can."
    )
    language_hint: list[str] = Field([], description=_NOTED)
    encoding: str | None = Field(
        None, max_length=40, description="What the audio is; absent: told by its content."
    )
    sample_rate: int | None = Field(None, description="Of headerless audio, in Hz.")
    channels: int | None = Field(None, description="Of headerless audio.")
    multichannel: bool = Field(False, description="Transcribe every channel by itself.")
    punctuate: bool = Field(False, description="Punctuation and capitals; without it, bare words.")
    smart_format: bool = Field(
        False,
        description="Brings `punctuate`, and `paragraphs` of recordings; no more than that.",
    )
    keyterm: list[str] = Field([], max_length=1000, description="Names and terms to expect.")
    keywords: list[str] = Field([], max_length=1000, description="Likewise, as `term:boost`.")
    replace: list[str] = Field([], max_length=200, description="`find:replacement`.")
    tag: list[str] = Field([], max_length=128, description="Given back in `metadata`.")
    extra: list[str] = Field([], max_length=128, description="`key:value`, given back in `metadata`.")
    mip_opt_out: bool = Field(False, description="Nothing is ever learned from requests here.")
    callback: str | None = Field(None, max_length=4000, description="Where the result is to be sent.")
    callback_method: Annotated[Literal["POST", "PUT"], BeforeValidator(str.upper)] = Field(
        "POST", description="How it is sent."
    )
    filler_words: bool = Field(False, description=_NOTED)
    profanity_filter: bool = Field(False, description=_NOTED)
    numerals: bool = Field(False, description=_NOTED)
    measurements: bool = Field(False, description=_NOTED)
    dictation: bool = Field(False, description=_NOTED)
    diarize: bool = Field(False, description=_LACKING)
    diarize_model: str | None = Field(None, description=_LACKING)
    redact: list[str] = Field([], description=_LACKING)
    detect_entities: bool = Field(False, description=_LACKING)


class ListenQuery(Query):
    """`POST /v1/listen`."""

    detect_language: list[str] = Field(
        [], description="`true`, or the codes to choose between; the answer names the language."
    )
    paragraphs: bool = Field(False, description="Paragraphs and sentences; brings punctuation with it.")
    utterances: bool = Field(False, description="The words once more, cut at pauses.")
    utt_split: float = Field(0.8, ge=0, le=3600, description="Such a pause, in seconds.")
    search: list[str] = Field([], max_length=200, description="Words to find in the text.")
    summarize: str | None = Field(None, description=_LACKING)
    sentiment: bool = Field(False, description=_LACKING)
    topics: bool = Field(False, description=_LACKING)
    intents: bool = Field(False, description=_LACKING)
    custom_topic: list[str] = Field([], description=_LACKING)
    custom_intent: list[str] = Field([], description=_LACKING)


class LiveQuery(Query):
    """WebSocket `/v1/listen`."""

    interim_results: bool = Field(False, description="Tell what an utterance sounds like so far.")
    endpointing: str | None = Field(
        None, max_length=20, description="The pause that ends an utterance, in ms; `false`: none does."
    )
    utterance_end_ms: int | None = Field(None, description="Tell `UtteranceEnd` after so much silence.")
    vad_events: bool = Field(False, description="Tell `SpeechStarted`.")
    search: list[str] = Field([], description=_LACKING)


class GrantBody(BaseModel):
    ttl_seconds: float = Field(default=30, ge=1, le=3600, description="For so long the token is good.")


class GrantOut(BaseModel):
    access_token: str = Field(description="To be sent as `Authorization: Bearer`.")
    expires_in: float = Field(description="Seconds.")


class UrlBody(BaseModel):
    """The JSON body of a recording that stands elsewhere."""

    model_config = ConfigDict(extra="ignore")

    url: str = Field(min_length=1, max_length=4000)


class WordOut(BaseModel):
    """`word` is bare and in lower case; `punctuated_word` as it is written, where that was asked for."""

    word: str
    start: float
    end: float
    confidence: float
    punctuated_word: str | None = None


class SentenceOut(BaseModel):
    text: str
    start: float
    end: float


class ParagraphOut(BaseModel):
    sentences: list[SentenceOut]
    num_words: int
    start: float
    end: float


class ParagraphsOut(BaseModel):
    transcript: str
    paragraphs: list[ParagraphOut]


class AlternativeOut(BaseModel):
    transcript: str
    confidence: float
    words: list[WordOut]
    paragraphs: ParagraphsOut | None = None


class HitOut(BaseModel):
    confidence: float
    start: float
    end: float
    snippet: str


class SearchOut(BaseModel):
    query: str
    hits: list[HitOut]


class ChannelOut(BaseModel):
    search: list[SearchOut] | None = None
    alternatives: list[AlternativeOut]
    detected_language: str | None = None
    language_confidence: float | None = None


class UtteranceOut(BaseModel):
    start: float
    end: float
    confidence: float
    channel: int
    transcript: str
    words: list[WordOut]
    id: str


class ResultsOut(BaseModel):
    channels: list[ChannelOut]
    utterances: list[UtteranceOut] | None = None


class ModelInfoOut(BaseModel):
    name: str
    version: str
    arch: str


class WarningOut(BaseModel):
    """Something that was asked for and not done, or that the caller should know."""

    parameter: str | None = None
    type: str
    message: str


class MetadataOut(BaseModel):
    transaction_key: Literal["deprecated"] = "deprecated"
    request_id: str
    sha256: str
    created: str
    duration: float
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfoOut]
    tags: list[str] | None = None
    extra: dict[str, str] | None = None
    warnings: list[WarningOut] | None = None


class ListenOut(BaseModel):
    metadata: MetadataOut
    results: ResultsOut


class AcceptedOut(BaseModel):
    """With `callback`."""

    request_id: str


class ErrorOut(BaseModel):
    err_code: str
    err_msg: str
    request_id: str
