"""A receiver of webhooks on a real socket of this machine, which answers as a test says: at once, late, with
any status, never, or by breaking off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """headers: with lower-case names."""

    path: str
    method: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True, slots=True)
class Answer:
    """after: not before this is set. body: sent behind the head as it is; endless: again and again. breaks:
    no answer, the connection is cut."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: asyncio.Event | None = None
    endless: bool = False
    breaks: bool = False


class WebhookReceiver:
    """received: in order of arrival."""

    def __init__(self, host: str, port: int) -> None:
        self.host = f"{host}:{port}"
        self.url = f"http://{self.host}/hook"
        self.received: list[Message] = []
        self._answers = [Answer()]
        self._arrival = asyncio.Condition()

    def answer(self, *answers: Answer | int) -> None:
        """With these in turn, and then with the last for ever."""
        self._answers = [Answer(one) if isinstance(one, int) else one for one in answers]

    async def arrived(self, count: int) -> list[Message]:
        """The first `count` messages, once they are here.

        Raises:
            TimeoutError: they do not come.
        """
        async with asyncio.timeout(20), self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= count)
        return self.received[:count]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, path, _ = first.split(" ")
            pairs = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            async with self._arrival:
                self.received.append(Message(path, method, headers, body))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                self._arrival.notify_all()
            await self._reply(answer, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the sender has had enough
        finally:
            writer.close()

    async def _reply(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        if answer.after is not None:
            await answer.after.wait()
        if answer.breaks:
            writer.transport.abort()
            return
        lines = [
            f"HTTP/1.1 {answer.status} X",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        if not answer.endless:
            lines.append(f"Content-Length: {len(answer.body)}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body)
        await writer.drain()
        while answer.endless:
            writer.write(answer.body)
            await writer.drain()


@contextlib.asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """On a free port of 127.0.0.1, while the block runs."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await receiver.serve(reader, writer)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver = WebhookReceiver("127.0.0.1", listener.sockets[0].getsockname()[1])
    try:
        yield receiver
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
