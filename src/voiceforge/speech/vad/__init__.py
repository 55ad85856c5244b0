"""Waveform → speech regions: Silero's probabilities, then one rule that turns them into regions."""
