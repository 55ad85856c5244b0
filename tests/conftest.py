"""What all tests share: in CI the same examples are tried every time, so that a run that was green stays so;
elsewhere hypothesis looks for new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
