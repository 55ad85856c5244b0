"""Recognised text → text a reader can trust: what is in it that nobody said."""
