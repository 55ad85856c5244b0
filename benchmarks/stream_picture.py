"""Steps of a test with more and more live streams → a picture. matplotlib comes with `voiceforge[bench]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from load_picture import BLUE, GREEN, RED, YELLOW, dress, new_figure, save
from traffic import quantile

if TYPE_CHECKING:
    from streaming import Figures


def draw_steps(steps: Sequence[Figures], path: Path) -> None:
    """Latency of finals and first interims, interims and cores, over the number of streams."""
    figure = new_figure("Live streams in real time")
    latency, work = figure.subplots(1, 2)
    streams = [step.streams for step in steps]
    for name, share, colour in (("p50", 0.5, BLUE), ("p95", 0.95, RED)):
        finals = [_ms(step.after_endpoint, share) for step in steps]
        latency.plot(streams, finals, "o-", color=colour, label=f"final after the endpoint, {name}")
    interims = [_ms(step.first_interim, 0.5) for step in steps]
    latency.plot(streams, interims, "o--", color=YELLOW, label="first interim after the first word, p50")
    latency.set_yscale("log")
    latency.legend(frameon=False, fontsize=8)
    dress(latency, "Latency", "milliseconds")
    work.plot(streams, [step.cores for step in steps], "o-", color=GREEN, label="cores of the server")
    work.plot(
        streams,
        [step.interims / step.audio_s for step in steps],
        "o--",
        color=YELLOW,
        label="interims per second of audio",
    )
    work.legend(frameon=False, fontsize=8)
    dress(work, "Work", "")
    for axes in (latency, work):
        axes.set_xlabel("streams at once")
    save(figure, path)


def _ms(values: Sequence[float], share: float) -> float:
    value = quantile(values, share)
    return float("nan") if value is None else 1000 * value
