"""Bytes → samples: probe, decode, resample, channels, level."""
