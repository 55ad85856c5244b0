"""Talks to a realtime server with whatever `openai` is importable; a request per line in, an answer per line.

Its own process, because one environment holds one version.
"""

import base64
import json
import sys
from typing import Any

import openai


def told(event: Any) -> dict[str, Any]:
    """The event as the client understood it: the class it made of it, too."""
    return {"class": type(event).__name__, **event.to_dict()}


def live(client: openai.OpenAI, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Sends the updates, then the audio; gives the events up to the `until`-th of a type."""
    connect = client.beta.realtime.connect(model=job["model"], extra_query={"intent": "transcription"})
    audio = base64.b64decode(job["audio"])
    events = []
    with connect as connection:
        events.append(told(connection.recv()))
        if job.get("session") is not None:
            connection.transcription_session.update(session=job["session"])
            events.append(told(connection.recv()))
        for at in range(0, len(audio), job["piece"]):
            connection.input_audio_buffer.append(
                audio=base64.b64encode(audio[at : at + job["piece"]]).decode()
            )
        if job.get("commit"):
            connection.input_audio_buffer.commit()
        kind, count = job["until"]
        while sum(one["type"] == kind for one in events) < count:
            events.append(told(connection.recv()))
    return events


def secret(client: openai.OpenAI, job: dict[str, Any]) -> dict[str, Any]:
    made = client.beta.realtime.transcription_sessions.create(**job["session"])
    return {"value": made.client_secret.value, "expires_at": made.client_secret.expires_at}


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        try:
            client = openai.OpenAI(
                base_url=f"{job['url']}/v1",
                websocket_base_url=f"{job['url'].replace('http', 'ws')}/v1",
                api_key=job["key"],
                max_retries=0,
            )
            answer: Any = {"answer": {"live": live, "secret": secret}[job["do"]](client, job)}
        except Exception as error:
            answer = {"crashed": f"{type(error).__name__}: {error}"}
        print(json.dumps({"version": openai.__version__, **answer}, default=str), flush=True)


main()
