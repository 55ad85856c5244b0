"""Waveform → Hypothesis: one module per family and runtime, the catalog, the registry, the batcher."""
