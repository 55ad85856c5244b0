"""Alembic runs this; the connection is `Migrations`', with its transaction."""

from __future__ import annotations

from alembic import context

from voiceforge.infra.db.tables_access import users

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=users.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
