"""Logs and metrics. Transcript text is personal data and stays out of both."""
