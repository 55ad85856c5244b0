"""Our errors as Deepgram words them: `{err_code, err_msg, request_id}`, and `dg-error` beside it."""

from __future__ import annotations

from collections.abc import Mapping

from voiceforge.errors import ErrorKind, Unauthenticated, VoiceForgeError

PATH = "/v1/listen"
GRANT_PATH = "/v1/auth/grant"

STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNSUPPORTED_OPTION: 400,
    ErrorKind.INVALID_AUDIO: 400,
    ErrorKind.AUDIO_OUT_OF_LIMITS: 400,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.PERMISSION_DENIED: 403,
    # What can be missing here is the model: Deepgram's clients know that as a bad request.
    ErrorKind.NOT_FOUND: 400,
    ErrorKind.CONFLICT: 409,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.QUOTA_EXCEEDED: 402,
    ErrorKind.STORAGE_FULL: 507,
    # The server of the `url`; the clients would repeat a 5xx.
    ErrorKind.UPSTREAM_FAILED: 400,
    ErrorKind.DEADLINE_EXCEEDED: 504,
    ErrorKind.CANCELLED: 499,
    ErrorKind.INTERNAL: 500,
}
_BAD_REQUEST = "Bad Request"
_CODES: Mapping[ErrorKind, str] = {
    ErrorKind.TOO_LARGE: "PAYLOAD_TOO_LARGE",
    ErrorKind.UNAUTHENTICATED: "INVALID_AUTH",
    ErrorKind.PERMISSION_DENIED: "INSUFFICIENT_PERMISSIONS",
    ErrorKind.CONFLICT: "CONFLICT",
    ErrorKind.OVERLOADED: "TOO_MANY_REQUESTS",
    ErrorKind.UNAVAILABLE: "SERVICE_UNAVAILABLE",
    ErrorKind.QUOTA_EXCEEDED: "ASR_PAYMENT_REQUIRED",
    ErrorKind.STORAGE_FULL: "INSUFFICIENT_STORAGE",
    ErrorKind.UPSTREAM_FAILED: "REMOTE_CONTENT_ERROR",
    ErrorKind.DEADLINE_EXCEEDED: "GATEWAY_TIMEOUT",
    ErrorKind.CANCELLED: "CANCELLED",
    ErrorKind.INTERNAL: "INTERNAL_SERVER_ERROR",
}
_MOST_HEADER_CHARS = 1000


def error_message(error: VoiceForgeError) -> str:
    if type(error) is Unauthenticated:
        return "Invalid credentials."
    if isinstance(error, Unauthenticated):
        return f"Invalid credentials: {error.message}."
    choices = ", ".join(error.choices)
    if choices not in error.message:  # this shape has no field for them
        return f"{error.message}; it can be one of: {choices}"
    return error.message


class DeepgramErrors:
    name = "deepgram"
    statuses = STATUSES

    def covers(self, path: str) -> bool:
        return path in (PATH, GRANT_PATH)

    def body(self, error: VoiceForgeError, status: int, request_id: str) -> Mapping[str, object]:
        return {
            "err_code": _CODES.get(error.kind, _BAD_REQUEST),
            "err_msg": error_message(error),
            "request_id": request_id,
        }

    def headers(self, error: VoiceForgeError, status: int) -> Mapping[str, str]:
        plain = error_message(error).encode("ascii", "replace").decode()
        line = "".join(char if char.isprintable() else " " for char in plain)
        return {"dg-error": line[:_MOST_HEADER_CHARS]}
