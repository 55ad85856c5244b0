"""What freeing a large block costs the next time; in processes of their own, which keep such settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")

BLOCK_PAGES = 20 * 256
MEASURE = """
import resource
from voiceforge.main.memory import return_large_blocks, suit_memory_to
{set_up}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(20 << 20)
    block[::4096] = bytes(len(block) // 4096)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_touched_anew(set_up: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(set_up=set_up)], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_large_blocks_go_back_to_the_system() -> None:
    assert pages_touched_anew("return_large_blocks()") >= BLOCK_PAGES


def test_large_blocks_go_back_beside_an_engine_that_keeps_its_own() -> None:
    assert pages_touched_anew("return_large_blocks(); suit_memory_to('moonshine_ort')") >= BLOCK_PAGES


def test_ctranslate2_finds_its_blocks_where_it_left_them() -> None:
    assert pages_touched_anew("return_large_blocks(); suit_memory_to('whisper_ct2')") < BLOCK_PAGES / 10
