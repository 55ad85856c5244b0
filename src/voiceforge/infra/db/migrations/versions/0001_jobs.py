"""Jobs: recordings, transcriptions, chunks, results, batches, events, webhooks, deliveries, chores,
uploads."""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Words as they stand, without a language's endings: names and mixed languages are looked for too. Whose a
# text is stands in the index beside its words, so that those of others cost nothing.
_FORGET = (
    "INSERT INTO result_texts(result_texts, rowid, text, tenant)"
    " VALUES ('delete', old.seq, old.text, old.tenant);"
)
_LEARN = "INSERT INTO result_texts(rowid, text, tenant) VALUES (new.seq, new.text, new.tenant);"
_SEARCH_SQLITE = (
    "CREATE VIRTUAL TABLE result_texts USING fts5(text, tenant, content='results', content_rowid='seq',"
    " tokenize='unicode61 remove_diacritics 2', prefix='2 3')",
    f"CREATE TRIGGER results_added AFTER INSERT ON results BEGIN {_LEARN} END",
    f"CREATE TRIGGER results_gone AFTER DELETE ON results BEGIN {_FORGET} END",
    f"CREATE TRIGGER results_changed AFTER UPDATE OF text ON results BEGIN {_FORGET} {_LEARN} END",
)
# Marks beside the words: whose a text is, and among which neighbours it was finished; see `search`. What is
# new goes into the index at once: a list of what is still to go there would be read whole by every search.
_SEARCH_POSTGRESQL = r"""CREATE INDEX ix_results_search ON results USING gin ((
    to_tsvector('simple'::regconfig, text) || array_to_tsvector(ARRAY[
        E'\x01' || tenant::text,
        E'\x01a' || (seq >> 9)::text || ' ' || tenant::text,
        E'\x01b' || (seq >> 12)::text || ' ' || tenant::text,
        E'\x01c' || (seq >> 15)::text || ' ' || tenant::text])
)) WITH (fastupdate = off)"""


def _where(condition: str) -> dict[str, Any]:
    """An index over these rows only."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("refused", DOCUMENT, nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_batches_tenant_idempotency_key"),
    )
    op.create_index("ix_batches_newest", "batches", ["tenant", "id"], unique=False)
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("lease_token", sa.String(length=40), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("last_run_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_chores"),
    )
    op.create_table(
        "recordings",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_recordings"),
    )
    op.create_index("ix_recordings_content", "recordings", ["tenant", "sha256"], unique=False)
    op.create_index(
        "ix_recordings_erasing", "recordings", ["id"], unique=False, **_where("state = 'erasing'")
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("event_types", DOCUMENT, nullable=False),
        sa.Column("secrets", DOCUMENT, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_newest", "webhooks", ["tenant", "id"], unique=False)
    op.create_index("ix_webhooks_callbacks", "webhooks", ["tenant"], unique=True, **_where("url IS NULL"))
    op.create_table(
        "transcriptions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("options", DOCUMENT, nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=True),
        sa.Column("recording_id", sa.String(length=40), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("callback_shape", DOCUMENT, nullable=True),
        sa.Column("batch_id", sa.String(length=40), nullable=True),
        sa.Column("batch_index", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("offered_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("lease_token", sa.String(length=40), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("worker", sa.String(length=120), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("done_s", sa.Double(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.Column("ends_at", sa.Double(), nullable=True),
        sa.Column("error", DOCUMENT, nullable=True),
        sa.Column("erase_audio_at", sa.Double(), nullable=True),
        sa.Column("erase_text_at", sa.Double(), nullable=True),
        sa.Column("audio_erased_at", sa.Double(), nullable=True),
        sa.Column("text_erased_at", sa.Double(), nullable=True),
        sa.Column("retention", DOCUMENT, nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_transcriptions_batch_id"),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name="fk_transcriptions_recording_id"),
        sa.PrimaryKeyConstraint("id", name="pk_transcriptions"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_transcriptions_tenant_idempotency_key"),
    )
    op.create_index("ix_transcriptions_by_batch", "transcriptions", ["batch_id", "id"], unique=False)
    op.create_index("ix_transcriptions_by_model", "transcriptions", ["tenant", "model", "id"], unique=False)
    op.create_index("ix_transcriptions_by_recording", "transcriptions", ["recording_id"], unique=False)
    op.create_index("ix_transcriptions_by_status", "transcriptions", ["tenant", "status", "id"], unique=False)
    op.create_index(
        "ix_transcriptions_erase_audio",
        "transcriptions",
        ["erase_audio_at"],
        unique=False,
        **_where("erase_audio_at IS NOT NULL"),
    )
    op.create_index(
        "ix_transcriptions_erase_text",
        "transcriptions",
        ["erase_text_at"],
        unique=False,
        **_where("erase_text_at IS NOT NULL"),
    )
    op.create_index(
        "ix_transcriptions_leased",
        "transcriptions",
        ["lease_until"],
        unique=False,
        **_where("status = 'running'"),
    )
    op.create_index("ix_transcriptions_newest", "transcriptions", ["tenant", "id"], unique=False)
    op.create_index(
        "ix_transcriptions_waiting",
        "transcriptions",
        ["rank", "id"],
        unique=False,
        **_where("status = 'queued'"),
    )
    op.create_table(
        "chunks",
        sa.Column("transcription_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transcription_id"], ["transcriptions.id"], name="fk_chunks_transcription_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("transcription_id", "number", name="pk_chunks"),
    )
    op.create_table(
        "events",
        sa.Column("seq", COUNTER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("transcription_id", sa.String(length=40), nullable=True),
        sa.Column("batch_id", sa.String(length=40), nullable=True),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_events_batch_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["transcription_id"], ["transcriptions.id"], name="fk_events_transcription_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sa.UniqueConstraint("id", name="uq_events_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_events_of_chunks",
        "events",
        ["created_at"],
        unique=False,
        **_where("type = 'transcription.chunk'"),
    )
    op.create_index("ix_events_of_transcription", "events", ["transcription_id", "seq"], unique=False)
    op.create_table(
        "results",
        sa.Column("seq", COUNTER, autoincrement=True, nullable=False),
        sa.Column("transcription_id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transcription_id"],
            ["transcriptions.id"],
            name="fk_results_transcription_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_results"),
        sa.UniqueConstraint("transcription_id", name="uq_results_transcription_id"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("webhook_id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=300), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("lease_token", sa.String(length=40), nullable=True),
        sa.Column("worker", sa.String(length=120), nullable=True),
        sa.Column("log", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name="fk_deliveries_event_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("webhook_id", "event_id", "url", name="uq_deliveries_webhook_id_event_id_url"),
    )
    op.create_index("ix_deliveries_newest", "deliveries", ["tenant", "webhook_id", "id"], unique=False)
    op.create_index("ix_deliveries_of_event", "deliveries", ["event_id"], unique=False)
    op.create_index(
        "ix_deliveries_leased", "deliveries", ["id"], unique=False, **_where("lease_token IS NOT NULL")
    )
    op.create_index(
        "ix_deliveries_waiting", "deliveries", ["available_at"], unique=False, **_where("status = 'waiting'")
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("length_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("filename", sa.String(length=255), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("writer", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_expiring", "uploads", ["expires_at"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        for statement in _SEARCH_SQLITE:
            op.execute(statement)
        if sqlite3.sqlite_version_info >= (3, 42):  # what is erased leaves no trace in the index
            op.execute("INSERT INTO result_texts(result_texts, rank) VALUES('secure-delete', 1)")
    else:
        op.execute(_SEARCH_POSTGRESQL)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for trigger in ("results_added", "results_gone", "results_changed"):
            op.execute(f"DROP TRIGGER {trigger}")
        op.execute("DROP TABLE result_texts")
    else:
        op.execute("DROP INDEX ix_results_search")
    op.drop_index("ix_uploads_expiring", table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("ix_deliveries_waiting", table_name="deliveries")
    op.drop_index("ix_deliveries_leased", table_name="deliveries")
    op.drop_index("ix_deliveries_of_event", table_name="deliveries")
    op.drop_index("ix_deliveries_newest", table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("results")
    op.drop_index("ix_events_of_transcription", table_name="events")
    op.drop_index("ix_events_of_chunks", table_name="events")
    op.drop_table("events")
    op.drop_table("chunks")
    op.drop_index("ix_transcriptions_waiting", table_name="transcriptions")
    op.drop_index("ix_transcriptions_newest", table_name="transcriptions")
    op.drop_index("ix_transcriptions_leased", table_name="transcriptions")
    op.drop_index("ix_transcriptions_erase_text", table_name="transcriptions")
    op.drop_index("ix_transcriptions_erase_audio", table_name="transcriptions")
    op.drop_index("ix_transcriptions_by_status", table_name="transcriptions")
    op.drop_index("ix_transcriptions_by_recording", table_name="transcriptions")
    op.drop_index("ix_transcriptions_by_model", table_name="transcriptions")
    op.drop_index("ix_transcriptions_by_batch", table_name="transcriptions")
    op.drop_table("transcriptions")
    op.drop_index("ix_webhooks_callbacks", table_name="webhooks")
    op.drop_index("ix_webhooks_newest", table_name="webhooks")
    op.drop_table("webhooks")
    op.drop_index("ix_recordings_erasing", table_name="recordings")
    op.drop_index("ix_recordings_content", table_name="recordings")
    op.drop_table("recordings")
    op.drop_table("chores")
    op.drop_index("ix_batches_newest", table_name="batches")
    op.drop_table("batches")
