"""What is heard of a recording, over a line and back. The samples of windows go beside, as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

import numpy as np

from voiceforge.infra.audiohost.line import Bytes, Garbled
from voiceforge.speech.audio.level import ChannelLevel
from voiceforge.speech.audio.pcm import AudioInfo
from voiceforge.speech.options import AudioLimits, RawFormat, VadOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.listen import Ended, Heard, ListenEvent, ListenOptions, Opened
from voiceforge.speech.pipeline.outline import Outline
from voiceforge.speech.pipeline.windows import Window
from voiceforge.speech.vad.regions import Region

_SAMPLE_BYTES = 4


def options_to_json(options: ListenOptions) -> dict[str, Any]:
    return asdict(options)


def options_from_json(told: Mapping[str, Any]) -> ListenOptions:
    raw = told["raw"]
    return ListenOptions(
        **{
            **told,
            "raw": RawFormat(**raw) if raw is not None else None,
            "limits": AudioLimits(**told["limits"]),
            "vad": VadOptions(**told["vad"]),
        }
    )


def events_to_json(events: Sequence[ListenEvent]) -> tuple[dict[str, Any], list[memoryview]]:
    """The message, and the samples of its windows in order. Several Heard become one."""
    message: dict[str, Any] = {"events": len(events)}
    windows: list[WindowAudio] = []
    for event in events:
        match event:
            case Opened():
                outline = None if event.outline is None else asdict(event.outline)
                message["opened"] = [asdict(event.info), event.channel_count, outline]
            case Heard():
                windows += event.windows
                message["heard"] = [event.settled_samples, event.decoded_s]
            case Ended():
                message["ended"] = [[astuple(level) for level in event.levels], event.truncated]
    message["windows"] = [
        [audio.channel, audio.window.start, audio.window.end, [astuple(r) for r in audio.window.regions]]
        for audio in windows
    ]
    return message, [np.ascontiguousarray(audio.samples).data for audio in windows]


def events_from_json(message: Mapping[str, Any], arrays: Sequence[Bytes]) -> tuple[list[ListenEvent], int]:
    """The events, and how many there were before some became one.

    Raises:
        Garbled
    """
    try:
        return list(_events(message, arrays)), int(message["events"])
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled from error


def _events(message: Mapping[str, Any], arrays: Sequence[Bytes]) -> Iterator[ListenEvent]:
    if "opened" in message:
        info, channel_count, outline = message["opened"]
        yield Opened(AudioInfo(**info), int(channel_count), _outline(outline))
    if "heard" in message:
        settled_samples, decoded_s = message["heard"]
        windows = tuple(_window(*pair) for pair in zip(message["windows"], arrays, strict=True))
        yield Heard(windows, int(settled_samples), float(decoded_s))
    if "ended" in message:
        levels, truncated = message["ended"]
        yield Ended(tuple(ChannelLevel(*map(float, level)) for level in levels), bool(truncated))


def _outline(told: Mapping[str, Any] | None) -> Outline | None:
    if told is None:
        return None
    return Outline(float(told["every_s"]), tuple(map(float, told["shares"])))


def _window(told: Sequence[Any], samples: Bytes) -> WindowAudio:
    channel, start, end, regions = told
    if not 0 <= start < end or samples.nbytes != _SAMPLE_BYTES * (end - start):
        raise Garbled
    window = Window(start, end, tuple(Region(*region) for region in regions))
    return WindowAudio(int(channel), window, samples.view(np.float32))
