"""Fetching what a client names by URL, without letting it reach our own network."""
