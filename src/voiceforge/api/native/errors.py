"""Our errors as our own surface words them: one object, the same keys for every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voiceforge.errors import ErrorKind, VoiceForgeError

STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 422,
    ErrorKind.UNSUPPORTED_OPTION: 422,
    ErrorKind.INVALID_AUDIO: 422,
    ErrorKind.AUDIO_OUT_OF_LIMITS: 422,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.PERMISSION_DENIED: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.QUOTA_EXCEEDED: 402,
    ErrorKind.STORAGE_FULL: 507,
    ErrorKind.UPSTREAM_FAILED: 502,
    ErrorKind.DEADLINE_EXCEEDED: 504,
    ErrorKind.CANCELLED: 499,
    ErrorKind.INTERNAL: 500,
}


class NativeErrors:
    name = "native"
    statuses = STATUSES

    def covers(self, path: str) -> bool:
        return True

    def body(self, error: VoiceForgeError, status: int, request_id: str) -> Mapping[str, object]:
        return error_body(error, request_id)

    def headers(self, error: VoiceForgeError, status: int) -> Mapping[str, str]:
        return {}


def error_body(error: VoiceForgeError, request_id: str) -> dict[str, Any]:
    """An `ErrorOut`."""
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "kind": error.kind.value,
            "field": error.field,
            "choices": list(error.choices),
            "retryable": error.retryable,
            "request_id": request_id,
        }
    }
