"""Runs one version of Deepgram's own Python SDK, unmodified, for the tests: jobs come in as lines of JSON,
what the SDK made of the server's answers goes out.

A process of its own, because two versions cannot be imported into one.
"""

import asyncio
import base64
import contextlib
import json
import sys
import threading
import time
from pathlib import Path

import deepgram
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from websockets.exceptions import InvalidStatus

PATIENCE_S = 30
MAJOR = int(sys.argv[1])


def client(job, made=deepgram.DeepgramClient):
    http = job["url"]
    sockets = http.replace("http://", "ws://")
    places = {"base": http, "production": sockets, "agent": sockets}
    if MAJOR >= 7:
        places["agent_rest"] = http
    keys = {job.get("key_as", "api_key"): job["key"]}
    return made(**keys, environment=DeepgramClientEnvironment(**places), timeout=60)


def plain(made):
    if isinstance(made, (bytes, type(None))):
        return repr(made)
    known = made.model_dump(mode="json") if hasattr(made, "model_dump") else dict(made)
    return {"class": type(made).__name__, **known}


def recording(job):
    media = client(job).listen.v1.media
    once = {"max_retries": 0}
    try:
        if "file" in job:
            data = Path(job["file"]).read_bytes()
            made = media.transcribe_file(request=data, request_options=once, **job["query"])
        else:
            made = media.transcribe_url(url=job["at"], request_options=once, **job["query"])
    except ApiError as error:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return {"error": type(error).__name__, "status": error.status_code, "body": error.body} | {
            "headers": headers
        }
    return plain(made)


class Live:
    """One stream: what was told is kept in order, and can be waited for."""

    def __init__(self, connection):
        self.connection = connection
        self.told = []
        self.errors = []
        self.news = threading.Condition()
        self.over = False
        connection.on(EventType.MESSAGE, self.on_message)
        connection.on(EventType.ERROR, lambda error: self.errors.append(repr(error)))
        self.listening = threading.Thread(target=self.listen)
        self.listening.start()

    def listen(self):
        try:
            self.connection.start_listening()
        except Exception as error:
            self.errors.append(repr(error))
        with self.news:
            self.over = True
            self.news.notify_all()

    def on_message(self, message):
        with self.news:
            self.told.append(plain(message))
            self.news.notify_all()

    def wait_for(self, wanted, count=1):
        def there():
            fit = [one for one in self.told if all(one.get(name) == value for name, value in wanted.items())]
            return len(fit) >= count or self.over

        with self.news:
            if not self.news.wait_for(there, PATIENCE_S):
                self.errors.append(f"waited in vain for {wanted}")

    def control(self, kind):
        if MAJOR == 5:
            from deepgram.extensions.types.sockets import ListenV1ControlMessage

            self.connection.send_control(ListenV1ControlMessage(type=kind))
        else:
            name = {"KeepAlive": "keep_alive", "Finalize": "finalize", "CloseStream": "close_stream"}[kind]
            getattr(self.connection, f"send_{name}")()

    def configure(self, **fields):
        from deepgram.listen.v1.types.listen_v1configure import ListenV1Configure

        self.connection.send_configure(ListenV1Configure(type="Configure", **fields))

    def do(self, step):
        match step:
            case ["audio", encoded, size]:
                audio = base64.b64decode(encoded)
                for start in range(0, len(audio), size):
                    self.connection.send_media(audio[start : start + size])
            case ["raw", text]:
                self.connection._websocket.send(text)
            case ["configure", fields]:
                self.configure(**fields)
            case ["await", wanted, *count]:
                self.wait_for(wanted, *count)
            case ["pause", seconds]:
                time.sleep(seconds)
            case ["end"]:
                with self.news:
                    self.news.wait_for(lambda: self.over, PATIENCE_S)
            case ["drop"]:
                self.connection._websocket.socket.close()
            case [kind]:
                self.control(kind)


def live(job):
    query = dict(job["query"])
    headers = {"additional_headers": job["headers"]} if "headers" in job else None
    try:
        with client(job).listen.v1.connect(**query, request_options=headers) as connection:
            stream = Live(connection)
            with contextlib.suppress(Exception):  # it was closed by the other side: `code` says so
                for step in job["steps"]:
                    stream.do(step)
            stream.listening.join(PATIENCE_S)
            protocol = connection._websocket.protocol
            closed = {"code": protocol.close_code, "reason": protocol.close_reason}
            chosen = {"subprotocol": connection._websocket.subprotocol}
        return {"told": stream.told, "errors": stream.errors, **closed, **chosen}
    except ApiError as error:
        return {"status": error.status_code}
    except InvalidStatus as error:  # what `websockets` says; the SDKs look for another of its errors
        return {"status": error.response.status_code}


async def live_async(job):
    """As frameworks have it: a stream of all audio, a Finalize, the end."""
    told, errors = [], []
    both = client(job, deepgram.AsyncDeepgramClient)
    async with both.listen.v1.connect(**job["query"]) as connection:
        connection.on(EventType.MESSAGE, lambda message: told.append(plain(message)))
        connection.on(EventType.ERROR, lambda error: errors.append(repr(error)))
        listening = asyncio.create_task(connection.start_listening())
        await connection.send_media(base64.b64decode(job["audio"]))
        for kind in ("Finalize", "CloseStream"):
            if MAJOR == 5:
                from deepgram.extensions.types.sockets import ListenV1ControlMessage

                await connection.send_control(ListenV1ControlMessage(type=kind))
            else:
                await getattr(connection, {"Finalize": "send_finalize"}.get(kind, "send_close_stream"))()
        await asyncio.wait_for(listening, PATIENCE_S)
    return {"told": told, "errors": errors}


def main():
    jobs = {"recording": recording, "live": live, "live_async": lambda job: asyncio.run(live_async(job))}
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = jobs[job["do"]](job)
        except Exception as error:
            answer = {"crashed": repr(error)}
        print(json.dumps(answer, default=str), flush=True)


main()
