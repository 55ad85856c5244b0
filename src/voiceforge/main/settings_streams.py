"""The settings of live streams."""

from __future__ import annotations

from pydantic import ByteSize, Field

from voiceforge.main.settings_values import Section


class StreamSettings(Section):
    """Live streams; each server process counts its own."""

    max_sessions: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Streams at once before others are turned away; each holds one of `queue.max_requests`.",
    )
    max_sessions_per_key: int = Field(
        default=200, ge=1, le=100_000, description="Likewise of one API key, or of all where there is none."
    )
    max_lag_s: float = Field(
        default=2.0,
        gt=0,
        le=600,
        description="While finals take longer than this, or audio waits longer to be heard, no new stream is "
        "accepted: those inside do not get slower.",
    )
    idle_s: float = Field(
        default=60.0,
        ge=1,
        le=86_400,
        description="A stream that brings neither audio nor a keep-alive for so long is ended.",
    )
    max_session_s: float = Field(
        default=14_400.0,
        ge=1,
        description="When a stream is so old (4 hours), it is closed; its finals are told.",
    )
    max_unheard_s: float = Field(
        default=5.0,
        ge=0.5,
        le=600,
        description="Seconds of audio one stream may have waiting; its connection is not read meanwhile.",
    )
    grace_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="A stream whose client is cut off can be resumed for so long; 0: never.",
    )
    keep_events_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Events of a stream are kept for so long, to be told again to a client that resumes it.",
    )
    max_frame_bytes: ByteSize = Field(
        default=ByteSize(16 * 1024**2), ge=1024, description="Largest message on a WebSocket."
    )
