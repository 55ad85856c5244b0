"""`voiceforge doctor`: what this machine can do, one line each."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.complaints import EXIT_FAILED
from voiceforge.cli.ports import Choices, Ports

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_EPILOG = """\b
Exit code: 1 if anything failed, 0 otherwise; warnings do not count.

\b
Examples:
  voiceforge doctor
  voiceforge doctor --gpu
  voiceforge doctor --json
"""


@click.command(epilog=_EPILOG)
@click.option("--gpu", is_flag=True, help="Also compute on the GPU and check the results.")
@prints_json
@reads_settings
@click.pass_context
def command(ctx: click.Context, gpu: bool, as_json: bool, config: Path | None) -> None:
    """Check this machine: processor, GPU, memory, disk, engines, models, codecs."""
    doctor = ctx.ensure_object(Ports).doctor(Choices(config))
    findings = []
    for finding in doctor.examine(gpu=gpu):
        findings.append(finding)
        if not as_json:
            level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
            mend = f" — {finding.mend}" if finding.mend else ""
            click.echo(f"{level}  {finding.name:<12}  {finding.detail}{mend}")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    if any(finding.level == "fail" for finding in findings):
        ctx.exit(EXIT_FAILED)
