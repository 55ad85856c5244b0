"""Every error VoiceForge raises, as one tree.

VoiceForgeError
├── InvalidRequest            the caller asked for something malformed
│   ├── UnsupportedOption       an option outside what exists; names the choices
│   ├── UrlRefused              a URL we will not fetch
│   ├── ChecksumMismatch        the content is another than was announced
│   └── WeakPassword            says the rule for passwords
├── InvalidAudio              the bytes are not audio we can use
│   ├── EmptyAudio  UnreadableAudio  NoAudioTrack  DecoderCrashed
│   └── AudioTooShort  AudioTooLong      readable, outside the limits
├── UploadTooLarge            over the size limit, while it was still arriving
├── Unauthenticated           nobody we know; each reason is a class
│   ├── MalformedCredential  ExpiredCredential  NotYetValid  RevokedCredential
│   └── WrongAddress  WrongAudience  WrongPassword
├── PermissionDenied
├── NotFound
│   └── ModelNotFound  ModelNotInstalled  BlobMissing
├── Conflict
├── Overloaded                the queue is full; says when to come back
│   └── RateLimited             this caller asks too often, or for too much at once
├── Unavailable               a part we need is missing or not ready yet
│   ├── DependencyMissing
│   └── ShuttingDown  EngineCrashed
├── QuotaExceeded             what this caller may have is used up
├── StorageFull               no room for what should be kept
├── UpstreamFailed            a server we fetched from failed
├── DeadlineExceeded  Cancelled
├── EngineFailed              recognition itself broke
│   └── OutOfDeviceMemory       fewer windows at once may still fit
└── ConfigurationError        settings that cannot work; lists every problem

Knows no HTTP: each surface owns one table from `ErrorKind` to its wire form.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """What a surface needs to know to choose a status; the codes below it are for programs."""

    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_OPTION = "unsupported_option"
    INVALID_AUDIO = "invalid_audio"
    AUDIO_OUT_OF_LIMITS = "audio_out_of_limits"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    QUOTA_EXCEEDED = "quota_exceeded"
    STORAGE_FULL = "storage_full"
    UPSTREAM_FAILED = "upstream_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class VoiceForgeError(Exception):
    """Base of all our errors.

    Args:
        message: one sentence for a person; free of paths, secrets and transcript text.
        field: the request field or option at fault, if one is.
        choices: what the field would accept, if that is a short list.
        retry_after_s: when trying again makes sense, in seconds.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        choices: Sequence[str] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.choices = tuple(choices)
        self.retry_after_s = retry_after_s


class InvalidRequest(VoiceForgeError):
    kind = ErrorKind.INVALID_REQUEST
    code = "invalid_request"


class UnsupportedOption(InvalidRequest):
    kind = ErrorKind.UNSUPPORTED_OPTION
    code = "unsupported_option"


class UrlRefused(InvalidRequest):
    code = "url_refused"


class ChecksumMismatch(InvalidRequest):
    """What arrived does not hash to what was said of it."""

    code = "checksum_mismatch"


class WeakPassword(InvalidRequest):
    code = "weak_password"


class InvalidAudio(VoiceForgeError):
    kind = ErrorKind.INVALID_AUDIO
    code = "invalid_audio"


class EmptyAudio(InvalidAudio):
    code = "audio_empty"


class UnreadableAudio(InvalidAudio):
    code = "audio_unreadable"


class NoAudioTrack(InvalidAudio):
    code = "audio_no_track"


class DecoderCrashed(InvalidAudio):
    """The process that decoded it ended over it, and again when it was tried anew, or did not get on."""

    code = "audio_decoder_crashed"


class AudioTooShort(InvalidAudio):
    kind = ErrorKind.AUDIO_OUT_OF_LIMITS
    code = "audio_too_short"


class AudioTooLong(InvalidAudio):
    kind = ErrorKind.AUDIO_OUT_OF_LIMITS
    code = "audio_too_long"


class UploadTooLarge(VoiceForgeError):
    kind = ErrorKind.TOO_LARGE
    code = "upload_too_large"


class Unauthenticated(VoiceForgeError):
    """Nothing was offered, or nothing that we know."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "invalid_api_key"


class MalformedCredential(Unauthenticated):
    """A key with a slip in it, or a token that is none or is signed in a way we do not take."""

    code = "malformed_credential"


class ExpiredCredential(Unauthenticated):
    code = "expired_credential"


class NotYetValid(Unauthenticated):
    code = "credential_not_yet_valid"


class RevokedCredential(Unauthenticated):
    """Taken back, or its owner may not come in any more."""

    code = "revoked_credential"


class WrongAddress(Unauthenticated):
    """The key may not be used from there."""

    code = "wrong_address"


class WrongAudience(Unauthenticated):
    """The token is for another server, or for another door of this one."""

    code = "wrong_audience"


class WrongPassword(Unauthenticated):
    """Or nobody has that address, or they may not come in: who asks is not told which."""

    code = "wrong_password"


class PermissionDenied(VoiceForgeError):
    kind = ErrorKind.PERMISSION_DENIED
    code = "permission_denied"


class NotFound(VoiceForgeError):
    kind = ErrorKind.NOT_FOUND
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class ModelNotInstalled(NotFound):
    """A model we know of whose files or runtime are not here; the message says what to pull."""

    code = "model_not_installed"


class BlobMissing(NotFound):
    """The store has nothing under that key (any more)."""

    code = "blob_missing"


class Conflict(VoiceForgeError):
    kind = ErrorKind.CONFLICT
    code = "conflict"


class Overloaded(VoiceForgeError):
    kind = ErrorKind.OVERLOADED
    code = "overloaded"
    retryable = True


class RateLimited(Overloaded):
    code = "rate_limited"


class Unavailable(VoiceForgeError):
    kind = ErrorKind.UNAVAILABLE
    code = "unavailable"
    retryable = True


class DependencyMissing(Unavailable):
    """A package is not installed: nothing that the same request could mend by coming again."""

    code = "dependency_missing"
    retryable = False


class ShuttingDown(Unavailable):
    code = "shutting_down"


class EngineCrashed(Unavailable):
    """The process that runs the model ended while it worked on this, and again when it was tried anew."""

    code = "engine_crashed"


class QuotaExceeded(VoiceForgeError):
    """Of a month, or of room: nothing that coming again soon could mend."""

    kind = ErrorKind.QUOTA_EXCEEDED
    code = "quota_exceeded"


class StorageFull(VoiceForgeError):
    """A disk, a quota or a bucket holds no more; the same may succeed once somebody made room."""

    kind = ErrorKind.STORAGE_FULL
    code = "storage_full"
    retryable = True


class UpstreamFailed(VoiceForgeError):
    kind = ErrorKind.UPSTREAM_FAILED
    code = "upstream_failed"
    retryable = True


class DeadlineExceeded(VoiceForgeError):
    kind = ErrorKind.DEADLINE_EXCEEDED
    code = "deadline_exceeded"
    retryable = True


class Cancelled(VoiceForgeError):
    kind = ErrorKind.CANCELLED
    code = "cancelled"


class EngineFailed(VoiceForgeError):
    code = "engine_failed"
    retryable = True


class OutOfDeviceMemory(EngineFailed):
    """The memory of the device did not hold the windows that were decoded together."""

    code = "out_of_device_memory"


class ConfigurationError(VoiceForgeError):
    """Settings that cannot work. `problems` lists every one of them, one line each."""

    code = "configuration_error"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
