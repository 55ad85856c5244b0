"""Alembic runs this; the connection is `Migrations`', with its transaction."""

from __future__ import annotations

from alembic import context

from voiceforge.infra.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
