"""Telling other servers what happened, signed, without being made to reach into our own network."""
