"""The core, a library: bytes → Transcript → bytes.

Knows no web, database, queue or settings. Positions inside audio, vad and pipeline are int
samples at 16 kHz; `start`, `end` and `duration` are float seconds from the start of the
recording; rounding happens once, in `formats`.
"""
