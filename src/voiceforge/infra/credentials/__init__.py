"""Secrets of people: passwords as hashes, and the keys and tokens that say who they are."""
