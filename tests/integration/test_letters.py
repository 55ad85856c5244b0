"""Letters on their way out: to a command, to a URL, and what is told when they do not get there."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from voiceforge.errors import DeadlineExceeded, UpstreamFailed
from voiceforge.infra.letters.base import Letter, LetterKind
from voiceforge.infra.letters.command import LetterCommand
from voiceforge.infra.letters.http import LetterUrl
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.infra.webhooks.signing import new_secret
from voiceforge.services.letter_desk import LetterDesk
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.webhook_receiver import webhook_receiver

LETTER = Letter(LetterKind.INVITE, "ann@example.org", "vft_secret", 1_800_000_000.5, "Acme")


def python(code: str, *arguments: str) -> Sequence[str]:
    return (sys.executable, "-c", code, *arguments)


async def test_a_command_gets_the_letter_on_its_input_and_nothing_as_argument(tmp_path: Path) -> None:
    kept = tmp_path / "letter $HOME; x.json"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read()); assert len(sys.argv) == 2"
    await LetterCommand(python(code, str(kept))).send(LETTER)
    assert json.loads(kept.read_text()) == {
        "kind": "invite",
        "to": "ann@example.org",
        "token": "vft_secret",
        "expires_at": 1_800_000_000,
        "tenant_name": "Acme",
    }


async def test_a_command_that_refuses_lacks_or_hangs_is_told() -> None:
    with pytest.raises(UpstreamFailed, match="ended with 3"):
        await LetterCommand(python("import sys; sys.exit(3)")).send(LETTER)
    with pytest.raises(UpstreamFailed, match="cannot be run"):
        await LetterCommand(["/nowhere/send-letter"]).send(LETTER)
    with pytest.raises(DeadlineExceeded):
        await LetterCommand(python("import time; time.sleep(60)"), timeout_s=0.5).send(LETTER)
    # One that does not read its input, but says that it took it.
    await LetterCommand(python("pass")).send(LETTER)


async def test_a_url_gets_it_signed_as_webhooks_are() -> None:
    async with webhook_receiver() as receiver:
        secret = new_secret()
        sender = HttpWebhookSender(allow_hosts=[receiver.host])
        await LetterUrl(sender, receiver.url, [secret]).send(LETTER)
        (message,) = await receiver.arrived(1)
        assert Webhook(secret).verify(message.body, dict(message.headers)) == LETTER.document()
        receiver.answer(500)
        with pytest.raises(UpstreamFailed, match="answered 500"):
            await LetterUrl(sender, receiver.url).send(LETTER)
        assert "webhook-signature" not in receiver.received[-1].headers


async def test_what_cannot_be_sent_is_told_without_its_token_and_address() -> None:
    desk = LetterDesk(LetterCommand(python("import sys; sys.exit(1)")), again_after_s=(0.01, 0.01))
    with log_lines() as lines:
        desk.post(LETTER)
        await desk.wait_sent()
    (line,) = [one for one in lines if one["event"] == "letter_not_sent"]
    assert (line["kind"], line["problem"]) == ("invite", "upstream_failed")
    assert LETTER.token not in str(lines)
    assert LETTER.to not in str(lines)


def test_a_letter_shows_no_token_where_it_is_printed() -> None:
    assert LETTER.token not in repr(LETTER)
