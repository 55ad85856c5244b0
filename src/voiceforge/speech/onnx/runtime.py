"""The door to onnxruntime, imported when first used and with its telemetry off."""

from __future__ import annotations

import os
from typing import Any


def onnxruntime() -> Any:
    """The library. On Linux too, since 1.29, it sends its maker what it runs on and what it runs, by a
    thread of its own and a database in the user's cache, unless it is told not to before it is imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
