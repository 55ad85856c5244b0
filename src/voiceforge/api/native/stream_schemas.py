"""What `/v1/stream` takes and gives, as pydantic classes: what arrives is checked by them, what is sent is
described by them (AsyncAPI), and a test compares the two."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from voiceforge.api.native.schemas import (
    ErrorDetail,
    ModelRefOut,
    SegmentOut,
    StoredText,
    WordOut,
    split_at_commas,
)
from voiceforge.services.streams import BEST
from voiceforge.speech.options import ChannelMode, Codec, RawEncoding
from voiceforge.speech.transcript.stream_events import StreamWarningCode

STREAM_PATH = "/v1/stream"


def _off_is_none(value: Any) -> Any:
    return None if value in ("false", "off", False) else value


def _polish_model(value: Any) -> Any:
    return BEST if value in ("true", True) else _off_is_none(value)


class _Wishes(BaseModel):
    """What can be said when a stream is opened, and changed while it runs."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    language: StoredText | None = Field(
        None, max_length=40, description="ISO 639-1 code of what is spoken; absent: detect."
    )
    prompt: StoredText | None = Field(
        None, max_length=65_536, description="Text that precedes the speech, to set names and style."
    )
    keyterm: Annotated[list[StoredText], BeforeValidator(split_at_commas)] = Field(
        [], max_length=1000, description="Names and terms to expect; repeat it, or separate with commas."
    )
    words: bool = Field(True, description="Finals carry the time of every word.")
    temperature: float | None = Field(None, ge=0, le=1, description="Sampling temperature.")
    beam_size: int | None = Field(None, ge=1, le=20, description="Beams searched, where the model can.")
    interim: bool = Field(True, description="Tell what an utterance sounds like before it ends.")
    interim_every_ms: int = Field(500, ge=100, le=60_000, description="Of speech, between two of them.")
    endpointing_ms: Annotated[int | None, BeforeValidator(_off_is_none)] = Field(
        300, ge=10, le=10_000, description="The pause that ends an utterance; `false`: no pause does."
    )
    utterance_end_ms: int | None = Field(
        None, ge=100, le=60_000, description="Tell `utterance_end` after so much silence; absent: never."
    )
    min_utterance_ms: int = Field(0, ge=0, le=60_000, description="No pause ends a shorter utterance.")
    max_utterance_s: float | None = Field(
        None, ge=1, le=60, description="A longer utterance is cut; absent: where the model likes it."
    )
    vad_threshold: float | None = Field(None, gt=0, lt=1, description="Speech probability that is speech.")


class StreamQuery(_Wishes):
    """The query of `GET /v1/stream`. Unknown names are refused: a misspelt wish must not be dropped in
    silence."""

    model: str | None = Field(None, max_length=200, description="Model id or alias; absent: the default.")
    encoding: Literal["auto"] | RawEncoding | Codec = Field(
        "s16le",
        description="Of the binary frames. `auto`: a container (ogg, webm, mp4, wav …) that is found by its "
        "content.",
    )
    sample_rate: int | None = Field(None, ge=4_000, le=384_000, description="Of raw samples; absent: 16000.")
    input_channels: int | None = Field(None, ge=1, le=32, description="Of raw samples; absent: 1.")
    channels: ChannelMode = Field("mix", description="`split` recognises each channel by itself.")
    polish: Annotated[str | None, BeforeValidator(_polish_model)] = Field(
        None,
        max_length=200,
        description="A model that hears again what was said, and all of it at its end: that is kept as a "
        "transcription. `true`, `best`: the best one that is installed.",
    )
    retention: Literal["none"] | None = Field(
        None, description="`none`: nothing is kept, as without `polish`, which it cannot be combined with."
    )
    keep_audio_s: float | None = Field(
        None,
        ge=0,
        description="Seconds from the end of its transcription until kept audio is erased.",
    )
    keep_text_s: float | None = Field(None, ge=0, description="Likewise its text.")


class ResumeQuery(BaseModel):
    """The query of `GET /v1/stream` that takes up a stream whose connection was lost."""

    model_config = ConfigDict(extra="forbid")

    resume: str = Field(max_length=200, description="`resume_token` of the `ready` message.")
    after: int = Field(0, ge=0, le=2**53, description="`seq` of the last message that arrived.")


class Configure(_Wishes):
    """Changes the wishes named in it from the next utterance on; the others stay."""

    type: Literal["configure"]


class Finalize(BaseModel):
    """What was said so far becomes final now; `flushed` follows it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["finalize"]


class KeepAlive(BaseModel):
    """Nothing is said, but somebody is there."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["keep_alive"]


class Close(BaseModel):
    """No more audio comes: the last finals follow, then `closed`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["close"]


ClientMessage = Annotated[Configure | Finalize | KeepAlive | Close, Field(discriminator="type")]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seq: int = Field(description="Counts the messages of a stream; `after` of a later connection names it.")


class Ready(BaseModel):
    """The first message of a connection.

    After a resume `received_bytes` says from where on audio is to be sent again.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["ready"]
    id: str
    resume_token: str = Field(description="A secret: whoever has it can take this stream over.")
    resume_within_s: float = Field(description="For so long a lost connection can be taken up again.")
    model: ModelRefOut
    resumed: bool
    received_bytes: int


class SpeechStartedOut(_Told):
    type: Literal["speech_started"]
    channel: int
    at: float


class InterimOut(_Told):
    type: Literal["interim"]
    channel: int
    utterance: int
    start: float
    end: float
    text: str
    words: list[WordOut]
    stable: int = Field(description="So many of the first words never change again.")


class FinalOut(_Told):
    type: Literal["final"]
    channel: int
    utterance: int
    start: float
    end: float
    text: str
    segments: list[SegmentOut]
    language: str | None
    language_probability: float | None
    reason: Literal["silence", "max_length", "finalize", "close"]


class SpeechEndedOut(_Told):
    """Speech without words is over: no final tells of it."""

    type: Literal["speech_ended"]
    channel: int
    start: float
    end: float


class UtteranceEndOut(_Told):
    type: Literal["utterance_end"]
    channel: int
    last_word_end: float


class FlushedOut(_Told):
    type: Literal["flushed"]
    at: float


class RevisionOut(_Told):
    """With `polish`: what finals said, heard again by the better model. Not all have one."""

    type: Literal["revision"]
    channel: int
    first: int = Field(description="`utterance` of the first final that this replaces.")
    last: int = Field(description="Likewise of the last one.")
    text: str
    segments: list[SegmentOut]


class ProgressOut(BaseModel):
    """How many bytes of audio have arrived, and how many seconds of it have been listened to; told about once
    a second while audio comes."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["progress"]
    received_bytes: int
    heard_s: float


class WarningOut(_Told):
    """Not all comes of the stream that was wished for; it goes on. `not_kept`: with `polish`, no
    transcription follows, or one of what was said so far. `kept_later`: it follows, but not at once."""

    type: Literal["warning"]
    code: StreamWarningCode
    message: str


class ClosedOut(_Told):
    """The last message of a stream."""

    type: Literal["closed"]
    duration: float
    transcription_id: str | None = Field(
        None, description="With `polish`: of the transcription that comes of it; null: none does."
    )


class StreamErrorOut(BaseModel):
    """What went wrong. `fatal`: the connection closes behind it; otherwise the message at fault was not
    heeded and all else goes on."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["error"]
    error: ErrorDetail
    fatal: bool


SERVER_MESSAGES: tuple[type[BaseModel], ...] = (
    Ready,
    SpeechStartedOut,
    InterimOut,
    FinalOut,
    SpeechEndedOut,
    UtteranceEndOut,
    FlushedOut,
    RevisionOut,
    ProgressOut,
    WarningOut,
    ClosedOut,
    StreamErrorOut,
)
CLIENT_MESSAGES: tuple[type[BaseModel], ...] = (Configure, Finalize, KeepAlive, Close)
