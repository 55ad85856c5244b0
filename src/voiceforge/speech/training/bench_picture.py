"""A bench report → a picture: error rate per kind of recording, speed, and latency, model beside model.

matplotlib comes with `voiceforge[bench]` and is loaded when the first picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voiceforge.errors import DependencyMissing, InvalidRequest
from voiceforge.speech.training.bench_report import BenchReport, ModelReport

# Paul Tol's "bright" scheme: distinct for colour-blind readers and in print.
_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
# Groups with fewer words than this do not set the scale: one bad clip would flatten all others.
_WORDS_THAT_COUNT = 50


def draw(report: BenchReport, path: Path) -> None:
    """Write the picture; the ending of the name chooses png, svg or pdf.

    Raises:
        DependencyMissing: matplotlib is not installed.
        InvalidRequest: the name has another ending, or the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InvalidRequest("the picture's name must end in .png, .svg or .pdf", field="plot")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissing(
            "drawing the report needs matplotlib: pip install 'voiceforge[bench]'"
        ) from error
    # Figure without pyplot: no display, and nothing kept in the module afterwards.
    figure: Any = Figure(figsize=(13, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1])
    speed, latency = below.subplots(1, 2)
    _draw_error_rates(above.subplots(1, 1), report.models)
    _draw_speed(speed, report.models)
    _draw_latency(latency, report.models)
    figure.suptitle(f"{report.manifest}   (normaliser {report.normaliser}, {report.concurrency} at a time)")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InvalidRequest(f"cannot write the picture: {error.strerror}", field="plot") from error


def _draw_error_rates(axes: Any, models: Sequence[ModelReport]) -> None:
    kinds = sorted({kind for m in models for kind, t in m.by_kind.items() if t.score.words.reference})
    labels = ["all", *kinds]
    width = 0.8 / max(len(models), 1)
    highest = _highest_bar(models)
    for index, model in enumerate(models):
        groups = [model.totals] + [model.by_kind.get(kind) for kind in kinds]
        for position, totals in enumerate(groups):
            rate = totals.score.words.rate if totals else None
            if rate is None:
                continue
            x, drawn = position + (index - (len(models) - 1) / 2) * width, min(100 * rate, highest)
            axes.bar(x, drawn, width * 0.92, color=_colour(index))
            axes.annotate(
                f"{100 * rate:.1f}" if rate < 0.9995 else f"{100 * rate:.0f}",
                (x, drawn),
                textcoords="offset points",
                xytext=(0, 2),
                ha="center",
                fontsize=8,
            )
    words = {kind: max(_words(m, kind) for m in models) for kind in kinds}
    words["all"] = max((m.totals.score.words.reference for m in models), default=0)
    axes.set_xticks(range(len(labels)), [f"{label}\n{words[label]} words" for label in labels], fontsize=8)
    axes.set_ylabel("word error rate, %")
    axes.set_title("Errors by kind of recording (lower is better)", fontsize=10)
    axes.set_ylim(0, highest * 1.1)
    _name_models(axes, models, [_label(m) for m in models], loc="upper right")
    _tidy(axes, "y")


def _highest_bar(models: Sequence[ModelReport]) -> float:
    """In percent; what is higher is cut there and has its number written on it."""
    groups = [totals for model in models for totals in (model.totals, *model.by_kind.values())]
    rates = [t.score.words.rate or 0.0 for t in groups if t.score.words.reference >= _WORDS_THAT_COUNT]
    return min(100.0, max(1.0, 130 * max(rates, default=1.0)))


def _draw_speed(axes: Any, models: Sequence[ModelReport]) -> None:
    height = 0.36
    most = max((value for m in models for value in (m.rtfx_wall, m.rtfx_cpu) if value), default=1.0)
    for index, model in enumerate(models):
        for value, offset, name, alpha in (
            (model.rtfx_wall, -height / 2, "by the clock", 1.0),
            (model.rtfx_cpu, height / 2, "per CPU-second", 0.55),
        ):
            axes.barh(index + offset, value or 0.0, height * 0.94, color=_colour(index), alpha=alpha)
            shown = f"{value:.1f}" if value is not None else "–"
            axes.text(
                (value or 0.0) + most * 0.01, index + offset, f"{shown}  {name}", va="center", fontsize=8
            )
    axes.set_yticks(range(len(models)), [model.model for model in models], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.3)
    axes.set_xlabel("seconds of audio per second")
    axes.set_title("Speed (higher is better)", fontsize=10)
    _tidy(axes, "x")


def _draw_latency(axes: Any, models: Sequence[ModelReport]) -> None:
    """How many files were done within a time: the distribution itself, no bins to choose."""
    labels = []
    for index, model in enumerate(models):
        waits = sorted(f.result.wall_s for f in model.files if f.result.error_code is None)
        if waits:
            shares = [100 * (rank + 1) / len(waits) for rank in range(len(waits))]
            axes.step([waits[0], *waits], [0.0, *shares], where="post", color=_colour(index))
        marks = ", ".join(f"p{p} {value:.2f} s" for p, value in model.latency_s.items())
        labels.append(f"{model.model}: {marks or 'no results'}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(0, 101)
    axes.set_xlabel("seconds per file")
    axes.set_ylabel("% of files done")
    axes.set_title("Latency (further left is better)", fontsize=10)
    _name_models(axes, models, labels, loc="lower right")
    _tidy(axes, "both")


def _label(model: ModelReport) -> str:
    memory = model.run.peak_rss_bytes / 2**20
    return f"{model.model}: {model.totals.invented_words} words invented, {memory:.0f} MiB at most"


def _words(model: ModelReport, kind: str) -> int:
    totals = model.by_kind.get(kind)
    return totals.score.words.reference if totals else 0


def _name_models(axes: Any, models: Sequence[ModelReport], labels: Sequence[str], loc: str = "best") -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=_colour(index), label=label) for index, label in enumerate(labels)]
    if patches:
        axes.legend(handles=patches, fontsize=8, frameon=False, loc=loc)


def _tidy(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
