"""Settings of recognition: audio, speech, engines, models, subtitles."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field, field_validator

from voiceforge.main.settings_values import Names, NameTable, Section, http_address

Device = Literal["auto", "cpu", "cuda"]
Isolation = Literal["process", "thread"]

# Ids that OpenAI's own server knows; clients have them compiled in.
OPENAI_MODEL_IDS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
# Likewise Deepgram's, but for `base`: that is a Whisper model of the catalog.
DEEPGRAM_MODEL_IDS = (
    "nova-3",
    "nova-3-general",
    "nova-3-medical",
    "nova-2",
    "nova-2-general",
    "nova-2-meeting",
    "nova-2-phonecall",
    "nova-2-finance",
    "nova-2-conversationalai",
    "nova-2-voicemail",
    "nova-2-video",
    "nova-2-medical",
    "nova-2-drivethru",
    "nova-2-automotive",
    "nova-2-atc",
    "nova",
    "nova-general",
    "nova-phonecall",
    "nova-medical",
    "enhanced",
    "enhanced-general",
    "enhanced-meeting",
    "enhanced-phonecall",
    "enhanced-finance",
    "general",
    "meeting",
    "phonecall",
    "finance",
    "conversationalai",
    "voicemail",
    "video",
)
DEFAULT_TARGET = "default"


class AudioSettings(Section):
    """What is accepted as audio, and how it is prepared."""

    min_duration_s: float = Field(default=0.1, ge=0, description="Shorter recordings are refused.")
    max_duration_s: float = Field(
        default=43_200.0, gt=0, description="Longer recordings are refused (12 hours)."
    )
    normalize_peak: bool = Field(
        default=True, description="Raise quiet speech to full scale before recognition."
    )
    isolation: Isolation = Field(
        default="process",
        description="Where the server decodes recordings and finds speech in them: in processes of their "
        "own, so that a file that kills a decoder costs no other request anything, or in threads beside the "
        "rest.",
    )
    decode_timeout_s: float = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="A recording of which nothing more could be decoded for so long is refused; only where "
        "it is decoded in a process of its own.",
    )


class VadSettings(Section):
    """Voice activity detection: what counts as speech."""

    threshold: float = Field(default=0.5, gt=0, lt=1, description="Speech probability that opens a region.")
    min_speech_ms: int = Field(default=100, ge=0, le=10_000, description="Shorter regions are dropped.")
    min_silence_ms: int = Field(
        default=300, ge=0, le=10_000, description="Shorter pauses do not end a region."
    )
    padding_ms: int = Field(
        default=200, ge=0, le=10_000, description="Audio kept on either side of a region."
    )


class EngineSettings(Section):
    """How models are run."""

    device: Device = Field(
        default="auto", description="Where models run; `auto` takes CUDA when it is usable."
    )
    compute_type: str = Field(
        default="auto",
        min_length=1,
        description="Number format of Whisper models, such as `int8` or `float16`.",
    )
    threads: int | None = Field(
        default=None,
        examples=[4],
        ge=1,
        le=1024,
        description="Processor cores used for recognition; unset: all this process may use.",
    )
    isolation: Isolation = Field(
        default="process",
        description="Where the server runs a model: in a process of its own, whose end costs a retry and "
        "whose memory really comes back, or in a thread beside the rest.",
    )
    silent_timeout_s: float = Field(
        default=5.0,
        ge=1,
        le=600,
        description="A model's process that has not answered for so long is ended and started again.",
    )
    batch_timeout_s: float = Field(
        default=300.0,
        ge=1,
        description="Likewise where one batch of windows has been running for so long.",
    )
    max_process_bytes: ByteSize | None = Field(
        default=None,
        gt=0,
        examples=["4GiB"],
        description="A model's process that takes more memory is started again between two batches; "
        "unset: no limit.",
    )


class QueueSettings(Section):
    """The queue in front of each model."""

    max_queued_s: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds of audio that may wait per model in front of a new request, by its priority, "
        "before it is turned away.",
    )
    batch_wait_s: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="The longest a window is held back so that others can be recognised together with "
        "it; not while others are not coming.",
    )
    max_requests: int = Field(
        default=256, ge=1, description="Requests waiting or running per model before others are turned away."
    )


class ModelSettings(Section):
    """Which models are there and when they are in memory."""

    preload: Names = Field(default=(), description="Models loaded at start besides the default one.")
    aliases: NameTable = Field(
        default={},
        validate_default=True,
        description="Other names for models, added to those OpenAI and Deepgram use; the target `default` is "
        "the default model, an empty target removes the name.",
    )
    idle_unload_s: float | None = Field(
        default=None,
        gt=0,
        examples=[900.0],
        description="Unload a model that nobody asked for during this time; unset: never.",
    )
    memory_budget_bytes: ByteSize | None = Field(
        default=None,
        gt=0,
        examples=["8GiB"],
        description="What all loaded models together may take; those unused for longest are unloaded to make "
        'room. Needs `engine.isolation = "process"`; unset: no limit.',
    )
    offline: bool = Field(default=False, description="Never download models; use what is installed.")
    hub_endpoint: str | None = Field(
        default=None,
        examples=["https://hub.example"],
        description="Address of the model hub or a mirror of it; unset: the public hub.",
    )

    @field_validator("aliases")
    @classmethod
    def _with_known_ids(cls, given: dict[str, str]) -> dict[str, str]:
        merged = dict.fromkeys((*OPENAI_MODEL_IDS, *DEEPGRAM_MODEL_IDS), DEFAULT_TARGET) | given
        return {name: target for name, target in merged.items() if target}

    @field_validator("hub_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)


class SubtitleSettings(Section):
    """The shape of srt and vtt output."""

    max_lines: int = Field(default=2, ge=1, le=10, description="Lines per cue.")
    max_line_chars: int = Field(default=42, ge=10, le=200, description="Characters per line.")
    max_chars_per_s: float = Field(
        default=20.0, ge=1, le=1000, description="Reading speed; a cue stays longer if there is room."
    )
    min_duration_s: float = Field(
        default=0.8, ge=0, le=10, description="Shortest cue, where the next one leaves room."
    )
    max_duration_s: float = Field(default=7.0, ge=0.5, le=60, description="Longest cue.")
    min_gap_s: float = Field(
        default=0.08, ge=0, le=2, description="Gap between cues (2 frames at 25 per second)."
    )
