"""Celery tasks: decode arguments, one service call."""
