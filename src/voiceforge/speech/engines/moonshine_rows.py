"""What the decoder's step attends to, for all rows of a batch: keys and values of what was heard and of
what was said.

The former take seven megabytes a row for 12 s and are read anew at every step, so they lie in one block that
the system can map in large pages. The encoder writes each row into its place, the step writes behind what it
wrote before, and a row leaves without the others being copied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.engines import moonshine_graph as graph

_MASKED = np.float32(-1e9)

CROSS_NAMES = tuple(
    graph.cross_name(part, layer) for layer in range(graph.N_LAYERS) for part in ("key", "value")
)


PAST_NAMES = tuple(f"past_{part}_{layer}" for layer in range(graph.N_LAYERS) for part in ("key", "value"))


class DecoderRows:
    """Arrays by the names of the step's inputs, shapes of `graph.build_step`.

    Args:
        own_frames: how many frames each row has of its own.
        n_frames: how many all of them get; what is beyond their own is masked.
        most_positions: steps that there may be.
    """

    def __init__(self, own_frames: list[int], n_frames: int, most_positions: int) -> None:
        n_rows = len(own_frames)
        self._n_rows = n_rows
        self._n_frames = n_frames
        self._heard = np.empty(
            (len(CROSS_NAMES), n_rows, graph.N_HEADS * graph.HEAD_DIM * n_frames), np.float32
        )
        self._past = np.empty(
            (len(PAST_NAMES), n_rows, graph.N_HEADS, most_positions, graph.PAST_DIM), np.float32
        )
        self._mask = np.zeros((n_rows, 1, 1, n_frames), np.float32)
        for row, own in enumerate(own_frames):
            self._mask[row, ..., own:] = _MASKED

    def places(self, row: int) -> dict[str, NDArray[np.float32]]:
        """Where the encoder is to write what it heard, by the names of its outputs."""
        return {
            name: part[row : row + 1].reshape(1, *self._shape(name))
            for name, part in zip(CROSS_NAMES, self._heard, strict=True)
        }

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Of the rows that are left; views."""
        found = {
            name: part[: self._n_rows].reshape(self._n_rows, *self._shape(name))
            for name, part in zip(CROSS_NAMES, self._heard, strict=True)
        }
        found |= {name: part[: self._n_rows] for name, part in zip(PAST_NAMES, self._past, strict=True)}
        found["mask"] = self._mask[: self._n_rows]
        return found

    def leave(self, row: int) -> None:
        """This row is done. The last one takes its place."""
        self._n_rows -= 1
        if row < self._n_rows:
            for array in (self._heard, self._past):
                array[:, row] = array[:, self._n_rows]
            self._mask[row] = self._mask[self._n_rows]

    def _shape(self, name: str) -> tuple[int, int, int]:
        if "key" in name:
            return graph.N_HEADS, graph.HEAD_DIM, self._n_frames
        return graph.N_HEADS, self._n_frames, graph.HEAD_DIM
