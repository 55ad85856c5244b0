"""Our errors as OpenAI words them: `{"error": {message, type, param, code}}`, all four keys, always."""

from __future__ import annotations

from collections.abc import Mapping

from voiceforge.errors import ErrorKind, VoiceForgeError

STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNSUPPORTED_OPTION: 422,
    ErrorKind.INVALID_AUDIO: 400,
    ErrorKind.AUDIO_OUT_OF_LIMITS: 422,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.PERMISSION_DENIED: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.QUOTA_EXCEEDED: 429,
    ErrorKind.STORAGE_FULL: 507,
    ErrorKind.UPSTREAM_FAILED: 502,
    ErrorKind.DEADLINE_EXCEEDED: 504,
    ErrorKind.CANCELLED: 499,
    ErrorKind.INTERNAL: 500,
}
_TYPES: Mapping[ErrorKind, str] = {
    ErrorKind.UNAUTHENTICATED: "authentication_error",
    ErrorKind.PERMISSION_DENIED: "permission_error",
    ErrorKind.OVERLOADED: "rate_limit_error",
    ErrorKind.QUOTA_EXCEEDED: "insufficient_quota",
}
_ROOTS = frozenset({"/v1/models", "/v1/audio", "/v1/realtime"})
_CODES: Mapping[ErrorKind, str] = {
    ErrorKind.OVERLOADED: "rate_limit_exceeded",
    ErrorKind.QUOTA_EXCEEDED: "insufficient_quota",
}


def error_object(error: VoiceForgeError, status: int) -> dict[str, object]:
    message, choices = error.message, ", ".join(error.choices)
    if choices not in message:  # this shape has no field for them
        message = f"{message}; it can be one of: {choices}"
    return {
        "message": message,
        "type": _TYPES.get(error.kind, "server_error" if status >= 500 else "invalid_request_error"),
        "param": error.field,
        "code": _CODES.get(error.kind, error.code),
    }


class OpenAIErrors:
    name = "openai"
    statuses = STATUSES

    def covers(self, path: str) -> bool:
        return path.startswith(("/v1/audio/", "/v1/models/", "/v1/realtime/")) or path in _ROOTS

    def body(self, error: VoiceForgeError, status: int, request_id: str) -> Mapping[str, object]:
        return {"error": error_object(error, status)}

    def headers(self, error: VoiceForgeError, status: int) -> Mapping[str, str]:
        # The client repeats 408, 409, 429 and 5xx by itself, the whole upload each time.
        return {} if error.retryable else {"x-should-retry": "false"}
