"""`callback`: the recording becomes a job, and the answer goes to a URL when it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from voiceforge.api.deepgram_compat.convert import Answered, listen_document
from voiceforge.api.deepgram_compat.schemas import ErrorOut, ListenQuery
from voiceforge.api.deepgram_compat.wishes import Wish, listen_wish
from voiceforge.api.http.forms import Fields, parse
from voiceforge.services.access import Caller
from voiceforge.services.callback_shapes import CallbackNews, Letter
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.recordings import Source
from voiceforge.speech.options import TranscribeOptions

SURFACE = "deepgram"
_MOST_RETRIES = 10
_PAUSE_S = 30.0
"""As Deepgram's documentation has them."""


def callback_request(
    query: ListenQuery,
    pairs: Sequence[tuple[str, str]],
    caller: Caller,
    wish: Wish,
    source: Source,
    model: str,
    request_id: str,
) -> JobRequest:
    """
    Args:
        pairs: the query as it came.
    """
    kept = [pair for pair in pairs if pair[0] not in ("callback", "callback_method")]
    return JobRequest(
        source=source,
        options=wish.options,
        model=model,
        caller=caller,
        metadata={"deepgram_request_id": request_id},
        callback_url=query.callback,
        callback_shape={
            "surface": SURFACE,
            "asked": {"request_id": request_id, "method": query.callback_method, "query": kept},
        },
        door=SURFACE,
    )


class DeepgramCallbacks:
    """See `CallbackShape`.

    Args:
        family: of a model, by its id.
    """

    def __init__(self, defaults: TranscribeOptions, family: Callable[[str], str]) -> None:
        self._defaults = defaults
        self._family = family

    def letter(self, news: CallbackNews) -> Letter:
        """The document that the request would have been answered with, or its error."""
        asked = news.asked
        if news.transcript is None:
            return Letter(_failure(news), asked["method"])
        pairs = [(str(name), str(value)) for name, value in asked["query"]]
        query = parse(ListenQuery, Fields(pairs).as_input(ListenQuery))
        answered = Answered(
            request_id=asked["request_id"],
            sha256=news.sha256 or "",
            created=datetime.fromtimestamp(news.job.created_at, UTC),
            family=self._family(news.transcript.model.id),
        )
        document = listen_document(news.transcript, listen_wish(query, self._defaults), answered)
        return Letter(document.model_dump_json(exclude_none=True).encode(), asked["method"])

    def pause_s(self, attempts: int) -> float | None:
        return _PAUSE_S if attempts <= _MOST_RETRIES else None


def _failure(news: CallbackNews) -> bytes:
    request_id: Mapping[str, Any] = {"request_id": news.asked["request_id"]}
    if news.error is not None:
        told = ErrorOut(err_code=news.error.code, err_msg=news.error.message, **request_id)
    else:
        message = "the transcription was cancelled, or its text erased before it could be sent"
        told = ErrorOut(err_code="CANCELLED", err_msg=message, **request_id)
    return to_json(told)
