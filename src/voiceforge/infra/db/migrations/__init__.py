"""Alembic migrations, each written out in full: it must not change when the tables do."""

HEAD = "0002"
"""The newest step, so that who only asks need not load what takes them."""
