"""Steps of a load test, or a soak → a picture. matplotlib comes with `voiceforge[bench]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from health_probe import Probe
from traffic import QUANTILES, Run, quantile
from watches import TreeSample

# Paul Tol's "bright" scheme: distinct for colour-blind readers and in print.
BLUE, RED, GREEN, YELLOW = "#4477AA", "#EE6677", "#228833", "#CCBB44"
_COLOURS = {"p50": BLUE, "p95": YELLOW, "p99": RED}


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a test. name: its load, for people. began_s: since the test began."""

    name: str
    began_s: float
    run: Run
    probes: Sequence[Probe] = field(default_factory=list)


def draw_steps(title: str, steps: Sequence[Step], memory: Sequence[TreeSample], path: Path) -> None:
    """Latency and throughput of each step, and the server's memory and CPU over time."""
    figure = new_figure(title)
    (latency, speed), (mem, health) = figure.subplots(2, 2)
    places = range(len(steps))
    names = [step.name for step in steps]
    for name, colour in _COLOURS.items():
        values = [step.run.latency_s(QUANTILES[name]) or float("nan") for step in steps]
        latency.plot(places, values, "o-", color=colour, label=name)
    latency.set_yscale("log")
    latency.legend(frameon=False, fontsize=8)
    dress(latency, "Latency of a request", "seconds")
    speed.bar(places, [step.run.audio_s_per_s for step in steps], color=GREEN)
    for place, step in zip(places, steps, strict=True):
        failed = sum(step.run.failures.values())
        told = f"{step.run.audio_s_per_s:.0f}" + (f"\n{failed} failed" if failed else "")
        speed.annotate(told, (place, step.run.audio_s_per_s), ha="center", va="bottom", fontsize=8)
    speed.margins(y=0.2)
    dress(speed, "Throughput", "audio seconds per second")
    for axes in (latency, speed):
        axes.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
    _draw_memory(mem, memory, [(step.began_s, step.name) for step in steps])
    for name in ("p50", "p99"):
        values = [_probes_ms(step.probes, QUANTILES[name]) for step in steps]
        health.plot(places, values, "o-", color=_COLOURS[name], label=name)
    health.set_yscale("log")
    health.legend(frameon=False, fontsize=8)
    health.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
    dress(health, "/health meanwhile", "milliseconds")
    save(figure, path)


def draw_soak(title: str, run: Run, memory: Sequence[TreeSample], settled_s: float, path: Path) -> None:
    """Every request's latency, and the memory, over time; the grey part does not count."""
    figure = new_figure(title)
    latency, mem = figure.subplots(2, 1, sharex=True)
    done = sorted(run.answered, key=lambda outcome: outcome.due_s)
    minutes = [outcome.due_s / 60 for outcome in done]
    latency.plot(minutes, [outcome.latency_s for outcome in done], ".", color=BLUE, ms=2, alpha=0.4)
    for name, colour in _COLOURS.items():
        points = per_minute(run, QUANTILES[name])
        latency.plot([x for x, _ in points], [y for _, y in points], "-", color=colour, label=name)
    latency.set_yscale("log")
    latency.legend(frameon=False, fontsize=8)
    dress(latency, "Latency of a request, and of each minute", "seconds")
    _draw_memory(mem, memory, [])
    mem.set_xlabel("minutes")
    for axes in (latency, mem):
        axes.axvspan(0, settled_s / 60, color="0.9")
    save(figure, path)


def per_minute(run: Run, share: float) -> list[tuple[float, float]]:
    """The middle of each minute, and the latency in seconds that `share` of its requests stayed within."""
    found = []
    for minute in range(int(max((o.due_s for o in run.outcomes), default=0.0) // 60) + 1):
        within = [o for o in run.outcomes if minute * 60 <= o.due_s < minute * 60 + 60]
        value = Run(tuple(within), 60.0).latency_s(share)
        if value is not None:
            found.append((minute + 0.5, value))
    return found


def _draw_memory(axes: Any, memory: Sequence[TreeSample], marks: Sequence[tuple[float, str]]) -> None:
    minutes = [sample.at_s / 60 for sample in memory]
    axes.plot(minutes, [sample.rss_mb for sample in memory], color=YELLOW, label="resident")
    axes.plot(minutes, [sample.pss_mb for sample in memory], color=BLUE, label="shared parts once")
    axes.set_ylim(bottom=0)
    for at_s, name in marks:
        axes.axvline(at_s / 60, color="0.8", lw=0.8, zorder=0)
        axes.annotate(name, (at_s / 60, 0), rotation=90, fontsize=7, va="bottom", color="0.4")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    dress(axes, "Memory of all processes of the server", "MB")
    axes.set_xlabel("minutes")


def _probes_ms(probes: Sequence[Probe], share: float) -> float:
    value = quantile([probe.seconds for probe in probes], share)
    return 1000 * value if value is not None else float("nan")


def new_figure(title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure without pyplot: no display, and nothing kept in the module afterwards.
    figure: Any = Figure(figsize=(13, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def dress(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
