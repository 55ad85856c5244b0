"""Plan, then run: the stages of a transcription in order, over any engine."""
