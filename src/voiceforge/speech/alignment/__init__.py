"""Waveform + text → word times, for engines that give none."""
