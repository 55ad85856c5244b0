"""What onnxruntime raises, as one tuple to catch. Its errors share no base of their own."""

from __future__ import annotations

from voiceforge.speech.onnx.runtime import onnxruntime


def ort_errors() -> tuple[type[Exception], ...]:
    """Every error class of onnxruntime, and what its Python side raises where memory is short."""
    state = onnxruntime().capi.onnxruntime_pybind11_state
    own = (
        value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)
    )
    return (*own, MemoryError)
