"""The tables. Every row belongs to a tenant; times are Unix seconds; ids sort by when they were made.

Text that was spoken stands in `chunks` and `results` only, so that erasing it is erasing there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

ID = String(40)
TENANT = String(64)
DOCUMENT = JSON().with_variant(JSONB(), "postgresql")
# SQLite counts up only what it knows as INTEGER.
COUNTER = BigInteger().with_variant(Integer(), "sqlite")


# Of events: those that tell of a chunk of text.
OF_CHUNKS = "type = 'transcription.chunk'"


def _where(condition: str) -> dict[str, Any]:
    """An index over these rows only."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


recordings = Table(
    "recordings",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("blob_key", Text, nullable=False),
    # "stored", or "erasing": nobody may refer to it any more, its blob is on its way out.
    Column("state", String(12), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_recordings_content", "tenant", "sha256"),
    Index("ix_recordings_erasing", "id", **_where("state = 'erasing'")),
)

batches = Table(
    "batches",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("metadata", DOCUMENT, nullable=False),
    # Of its items, those that were refused among them: [{"index", "kind", "code", "message", "field"}]
    Column("size", Integer, nullable=False),
    Column("refused", DOCUMENT, nullable=False),
    Column("callback_url", Text),
    Column("idempotency_key", String(255)),
    Column("request_digest", String(64)),
    Column("created_at", Double, nullable=False),
    Column("user_id", ID),
    UniqueConstraint("tenant", "idempotency_key"),
    Index("ix_batches_newest", "tenant", "id"),
)

transcriptions = Table(
    "transcriptions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("status", String(12), nullable=False),
    # 0 high, 1 normal, 2 low.
    Column("rank", SmallInteger, nullable=False),
    Column("model", String(255), nullable=False),
    Column("options", DOCUMENT, nullable=False),
    Column("metadata", DOCUMENT, nullable=False),
    Column("filename", String(255)),
    Column("recording_id", ID, ForeignKey("recordings.id")),
    Column("url", Text),
    Column("callback_url", Text),
    # Of a callback in a surface's own words: {"surface", "asked"}, for that surface to read.
    Column("callback_shape", DOCUMENT),
    Column("batch_id", ID, ForeignKey("batches.id")),
    Column("batch_index", Integer),
    Column("idempotency_key", String(255)),
    Column("request_digest", String(64)),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    # Not to be taken before; later than created_at after a failed attempt.
    Column("available_at", Double, nullable=False),
    # When workers elsewhere were last told of it.
    Column("offered_at", Double),
    Column("attempts", SmallInteger, nullable=False),
    # Who works on it, by a token that only that attempt knows, and until when that is believed.
    Column("lease_token", String(40)),
    Column("lease_until", Double),
    Column("worker", String(120)),
    Column("cancel_requested", Boolean, nullable=False),
    # Seconds of audio: done, in all, and done per second of late.
    Column("done_s", Double, nullable=False),
    Column("duration_s", Double),
    Column("ends_at", Double),
    Column("error", DOCUMENT),
    # When they go by policy; None: never.
    Column("erase_audio_at", Double),
    Column("erase_text_at", Double),
    Column("audio_erased_at", Double),
    Column("text_erased_at", Double),
    Column("retention", DOCUMENT),
    # Whose it is, and the key and the door that it came by.
    Column("user_id", ID),
    Column("key_id", ID),
    Column("door", String(20)),
    UniqueConstraint("tenant", "idempotency_key"),
    Index("ix_transcriptions_newest", "tenant", "id"),
    Index("ix_transcriptions_by_status", "tenant", "status", "id"),
    Index("ix_transcriptions_by_model", "tenant", "model", "id"),
    Index("ix_transcriptions_by_batch", "batch_id", "id"),
    Index("ix_transcriptions_of_user", "user_id", "id", **_where("user_id IS NOT NULL")),
    Index("ix_transcriptions_by_recording", "recording_id"),
    Index("ix_transcriptions_waiting", "rank", "id", **_where("status = 'queued'")),
    Index("ix_transcriptions_leased", "lease_until", **_where("status = 'running'")),
    Index("ix_transcriptions_erase_audio", "erase_audio_at", **_where("erase_audio_at IS NOT NULL")),
    Index("ix_transcriptions_erase_text", "erase_text_at", **_where("erase_text_at IS NOT NULL")),
)

chunks = Table(
    "chunks",
    metadata,
    Column("transcription_id", ID, ForeignKey("transcriptions.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

results = Table(
    "results",
    metadata,
    # What SQLite's search index knows a row by.
    Column("seq", COUNTER, primary_key=True, autoincrement=True),
    Column(
        "transcription_id",
        ID,
        ForeignKey("transcriptions.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
    Column("tenant", TENANT, nullable=False),
    Column("data", LargeBinary, nullable=False),
    # For the search, whose index the migrations make: each database has its own kind.
    Column("text", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", COUNTER, primary_key=True, autoincrement=True),
    Column("id", ID, nullable=False, unique=True),
    Column("tenant", TENANT, nullable=False),
    Column("transcription_id", ID, ForeignKey("transcriptions.id", ondelete="CASCADE")),
    Column("batch_id", ID, ForeignKey("batches.id", ondelete="CASCADE")),
    Column("type", String(40), nullable=False),
    # Never what was spoken: a chunk's event says which chunk.
    Column("data", DOCUMENT, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_events_of_transcription", "transcription_id", "seq"),
    Index("ix_events_of_chunks", "created_at", **_where(OF_CHUNKS)),
    sqlite_autoincrement=True,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    # None: signs the callbacks that requests name.
    Column("url", Text),
    Column("event_types", DOCUMENT, nullable=False),
    # Newest first: [{"secret": "whsec_…", "until": Unix seconds or null}]
    Column("secrets", DOCUMENT, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_webhooks_newest", "tenant", "id"),
    Index("ix_webhooks_callbacks", "tenant", unique=True, **_where("url IS NULL")),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("webhook_id", ID, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", ID, ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    # Of the URL, with its port: so that a slow one is not asked too much at a time.
    Column("host", String(300), nullable=False),
    # "waiting", "delivered" or "failed".
    Column("status", String(12), nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    # While somebody sends it: when that is not believed any more.
    Column("available_at", Double, nullable=False),
    Column("lease_token", String(40)),
    Column("worker", String(120)),
    # Of each attempt: [{"at", "status", "error", "took_s"}]
    Column("log", DOCUMENT, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("webhook_id", "event_id", "url"),
    Index("ix_deliveries_newest", "tenant", "webhook_id", "id"),
    Index("ix_deliveries_waiting", "available_at", **_where("status = 'waiting'")),
    Index("ix_deliveries_leased", "id", **_where("lease_token IS NOT NULL")),
    Index("ix_deliveries_of_event", "event_id"),
)

chores = Table(
    "chores",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("due_at", Double, nullable=False),
    Column("lease_token", String(40)),
    Column("lease_until", Double),
    Column("last_run_at", Double),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("length_bytes", BigInteger, nullable=False),
    # So much is on the disk; the file may hold more, which does not count.
    Column("offset_bytes", BigInteger, nullable=False),
    Column("metadata", Text),
    Column("filename", String(255)),
    Column("sha256", String(64)),
    # The request that brings more; another one that wants to takes its place here, and waits for its end.
    Column("writer", String(40)),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("user_id", ID),
    Index("ix_uploads_expiring", "expires_at"),
)
