"""What is derived is up to date, what the README names exists, and nothing local is committed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from voiceforge.main.settings import env_name, setting_fields
from voiceforge.main.settings_text import example_toml, markdown_tables

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_texts() -> dict[str, str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    texts = {}
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[name] = content.decode("utf-8", "replace")
    assert "pyproject.toml" in texts
    return texts


def test_the_example_file_is_what_the_settings_say() -> None:
    assert read("config.example.toml") == example_toml(), "run `make examples`"


def test_the_documented_tables_are_what_the_settings_say() -> None:
    page = read("docs/configuration.md")
    written = re.search(r"<!-- settings: begin.*?-->\n(.*)<!-- settings: end -->", page, re.DOTALL)
    assert written is not None
    assert written[1].strip() == markdown_tables().strip(), "run `make examples`"


def test_every_setting_is_documented() -> None:
    page = read("docs/configuration.md")
    for path, _ in setting_fields():
        assert f"`{env_name(path)}`" in page


def test_no_tracked_file_names_a_package_index_or_a_path_of_somebody_s_machine() -> None:
    indexes = re.compile(
        r"(?:py"
        + r"pi|python"
        + r"hosted|test\.py"
        + r"pi)\.org|\b(?:extra-)?index-url[ =]h|trusted-host[ =]\w"
    )
    folders = "|".join(["work", "root", "Users"])
    homes = re.compile(rf"(?<![\w.~-])/(?:(?:{folders})/|ho[m]e/(?!ada\b|voiceforge\b))\w")
    found = [
        f"{name}: {match[0]}"
        for name, text in tracked_texts().items()
        for pattern in (indexes, homes)
        if (match := pattern.search(text))
    ]
    assert found == []


def test_no_merge_was_left_half_done() -> None:
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [name for name, text in tracked_texts().items() if marks.search(text)] == []


def test_every_pin_is_exact_and_hashed() -> None:
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        blocks = re.split(r"(?m)^(?=[A-Za-z])", file.read_text(encoding="utf-8"))[1:]
        assert blocks
        for block in blocks:
            assert re.match(r"[\w.-]+==[\w.]+(?: ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", block), (
                block[:80]
            )


def test_the_three_sets_of_pins_agree() -> None:
    pins: dict[tuple[str, str], set[str]] = {}
    for file in (ROOT / "requirements").glob("*.txt"):
        if file.name.startswith(("deepgram", "openai")):
            continue  # the older clients stand beside the environment, not in it
        for name, version, marker in re.findall(
            r"(?m)^([\w.-]+)==([\w.]+)((?: ; [^\\\n]+)?) \\", file.read_text(encoding="utf-8")
        ):
            pins.setdefault((name, marker), set()).add(version)
    assert {pin: versions for pin, versions in pins.items() if len(versions) > 1} == {}


def test_every_target_that_is_documented_exists() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    named = set(re.findall(r"(?<![\w-])make ([a-z]+)\b", read("README.md") + read("CONTRIBUTING.md")))
    wanted = named | {"demo", "test", "lint", "format", "bench", "requirements", "docs", "help"}
    described = subprocess.run(
        [make, "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert wanted <= {line.split()[0] for line in described.splitlines()}


def test_the_first_lines_of_the_readme_are_the_two_commands() -> None:
    commands = re.findall(r"(?m)^make \w+", read("README.md"))
    assert commands[:2] == ["make demo", "make test"]
    assert len(read("README.md").split("make test")[0].splitlines()) <= 5


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
