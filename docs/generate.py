"""Write what is derived from the settings: config.example.toml and the tables of docs/configuration.md."""

from __future__ import annotations

from pathlib import Path

from voiceforge.main.settings_text import example_toml, markdown_tables

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- settings: begin, written by `make examples` -->", "<!-- settings: end -->"


def with_tables(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown_tables()}\n{END}{after}"


def main() -> None:
    (ROOT / "config.example.toml").write_text(example_toml(), encoding="utf-8")
    page = ROOT / "docs" / "configuration.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
