"""Letters go to a URL as JSON, signed as webhooks are."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence

from voiceforge.errors import UpstreamFailed
from voiceforge.infra.letters.base import Letter
from voiceforge.infra.webhooks.base import WebhookSender
from voiceforge.infra.webhooks.signing import signed_headers


class LetterUrl:
    """Args:
    signers: secrets as webhooks have them; none: nothing is signed.
    """

    def __init__(self, sender: WebhookSender, url: str, signers: Sequence[str] = ()) -> None:
        self._sender = sender
        self._url = url
        self._signers = tuple(signers)

    async def send(self, letter: Letter) -> None:
        body = json.dumps(letter.document()).encode()
        headers = (
            signed_headers(f"letter_{secrets.token_hex(16)}", int(time.time()), body, self._signers)
            if self._signers
            else {}
        )
        receipt = await self._sender.send(self._url, headers, body)
        if not 200 <= receipt.status < 300:
            raise UpstreamFailed(f"the receiver of letters answered {receipt.status}")
