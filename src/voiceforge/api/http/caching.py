"""What a request says about earlier results (`Cache-Control`), and what a reply says (`X-Cache`)."""

from __future__ import annotations

from starlette.requests import Request

from voiceforge.services.result_cache import CacheUse
from voiceforge.speech.transcript import Transcript

HEADER = "X-Cache"


def wanted_cache_use(request: Request) -> CacheUse:
    """`no-store`: neither read nor written. `no-cache`, `max-age=0`: not read."""
    wishes = {
        wish.strip().lower()
        for value in request.headers.getlist("cache-control")
        for wish in value.split(",")
    }
    if "no-store" in wishes:
        return CacheUse.NONE
    return CacheUse.FRESH if wishes & {"no-cache", "max-age=0"} else CacheUse.NORMAL


def cache_headers(transcript: Transcript) -> dict[str, str]:
    return {HEADER: "miss" if transcript.cached_at is None else "hit"}
