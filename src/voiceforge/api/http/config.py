"""What the HTTP side needs to know, as one frozen value; `main` makes it from the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from voiceforge.speech.options import TranscribeOptions


@dataclass(frozen=True, slots=True)
class HttpFeatures:
    """Parts that can be switched off."""

    openai_api: bool = True
    deepgram_api: bool = True
    url_input: bool = True
    metrics: bool = True


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """
    temp_dir: uploads lie here while they are worked on; it must exist and hold `max_upload_bytes`.
    api_key: where the services have no authentication of their own; None then leaves every path open.
    defaults: what a request that names no option gets (limits, VAD thresholds, peak normalisation).
    upload_idle_s: an upload that brings nothing for this long is given up, and any other body that takes it.
    unkept_upload_bytes: the largest upload of a request with `retention=none`, which stays in memory.
    unkept_text_s: how long the text of a job with `retention=none` can be fetched.
    ping_interval_s: a stream that has nothing to say sends a comment this often, so that no proxy
        takes it for dead.
    stream_resume_s: a live stream whose connection was lost can be taken up again for so long.
    max_body_bytes: of a request that is no upload.
    allowed_hosts, any_address: by what names the server is called, and whether by any address; None: by all.
    cors_origins: of web pages that may call from a browser; `*`: all.
    trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    """

    temp_dir: Path
    version: str
    api_key: str | None = field(default=None, repr=False)
    max_upload_bytes: int = 2 * 1024**3
    defaults: TranscribeOptions = field(default_factory=TranscribeOptions)
    features: HttpFeatures = field(default_factory=HttpFeatures)
    upload_idle_s: float = 60.0
    unkept_upload_bytes: int = 64 * 1024**2
    unkept_text_s: float = 3600.0
    ping_interval_s: float = 10.0
    stream_resume_s: float = 30.0
    max_body_bytes: int = 1024**2
    allowed_hosts: tuple[str, ...] | None = None
    any_address: bool = False
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
