"""The tables of people, keys, usage and the audit log; see `tables`.

Secrets stand here as keyed hashes, or sealed: whoever has only the database can use none of them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from voiceforge.infra.db.tables import COUNTER, DOCUMENT, ID, TENANT, metadata

HASH = String(64)
"""Of a secret, in hexadecimal."""
ADDRESS = String(64)

tenants = Table(
    "tenants",
    metadata,
    Column("id", TENANT, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("tier", String(40), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
)

users = Table(
    "users",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    # In lower case.
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(200)),
    Column("role", String(12), nullable=False),
    # None: they come by single sign-on, or were invited and have not answered yet.
    Column("password_hash", Text),
    Column("verified_at", Double),
    Column("disabled_at", Double),
    Column("created_at", Double, nullable=False),
    Column("last_login_at", Double),
    Index("ix_users_newest", "tenant", "id"),
)

identities = Table(
    "identities",
    metadata,
    # Who somebody is at a provider of single sign-on.
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_identities_of_user", "user_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    # Of the refresh token that is good now; whoever comes with an older one ends the session.
    Column("refresh_hash", HASH, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("refreshed_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("address", ADDRESS),
    Column("agent", String(255)),
    Index("ix_sessions_of_user", "user_id", "id"),
    Index("ix_sessions_expiring", "expires_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    # Whose it is; None: the tenant's own.
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE")),
    # Of whoever comes with it; never more than that of the user.
    Column("role", String(12), nullable=False),
    Column("name", String(200), nullable=False),
    # Its first characters, so that people know it again.
    Column("hint", String(20), nullable=False),
    Column("hash", HASH, nullable=False, unique=True),
    Column("scopes", DOCUMENT, nullable=False),
    # None: all.
    Column("models", DOCUMENT),
    # Networks it may be used from; None: all.
    Column("addresses", DOCUMENT),
    # Its own tier; None: that of the tenant.
    Column("tier", String(40)),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
    # The one that took its place.
    Column("replaced_by", ID),
    Index("ix_api_keys_newest", "tenant", "id"),
    Index("ix_api_keys_of_user", "user_id"),
)

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("hash", HASH, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    # "verify", "reset" or "invite".
    Column("purpose", String(12), nullable=False),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE")),
    Column("data", DOCUMENT, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Index("ix_one_time_tokens_expiring", "expires_at"),
    Index("ix_one_time_tokens_of_user", "user_id"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    # The `kid`.
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("algorithm", String(12), nullable=False),
    # The private key, sealed under the server's secret.
    Column("sealed", LargeBinary, nullable=False),
    Column("public", DOCUMENT, nullable=False),
    Column("created_at", Double, nullable=False),
    # What it signed is believed until then; None: it signs.
    Column("believed_until", Double),
)

usage = Table(
    "usage",
    metadata,
    Column("seq", COUNTER, primary_key=True, autoincrement=True),
    Column("tenant", TENANT, nullable=False),
    # What was done, so that nothing is booked twice.
    Column("booking", String(80), nullable=False, unique=True),
    Column("at", Double, nullable=False),
    # Days since 1970 in UTC.
    Column("day", Integer, nullable=False),
    Column("key_id", ID),
    Column("user_id", ID),
    Column("model", String(255), nullable=False),
    Column("door", String(20), nullable=False),
    # "live", "interactive" or "bulk".
    Column("class", String(12), nullable=False),
    Column("audio_s", Double, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("cached", Integer, nullable=False),
    # 1: it is in the sum of its day.
    Column("rolled", Integer, nullable=False),
    Index("ix_usage_newest", "tenant", "at"),
    Index("ix_usage_waiting", "rolled", "seq"),
    Index("ix_usage_old", "at"),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("tenant", TENANT, primary_key=True),
    # Days since 1970 in UTC.
    Column("day", Integer, primary_key=True),
    # "": nobody's own.
    Column("key_id", ID, primary_key=True),
    Column("user_id", ID, primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("door", String(20), primary_key=True),
    Column("class", String(12), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("audio_s", Double, nullable=False),
    Column("latency_s", Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", COUNTER, primary_key=True, autoincrement=True),
    Column("tenant", TENANT, nullable=False),
    # Of the tenant: 1, 2, 3 …; a number that lacks is an entry that was taken out.
    Column("number", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    # "user", "key", "owner", "server" or "nobody".
    Column("actor_kind", String(12), nullable=False),
    Column("actor_id", ID),
    Column("address", ADDRESS),
    Column("request_id", String(80)),
    Column("action", String(60), nullable=False),
    Column("target", String(255)),
    Column("details", DOCUMENT, nullable=False),
    # Over this entry and the hash of the one before.
    Column("hash", HASH, nullable=False),
    UniqueConstraint("tenant", "number"),
    sqlite_autoincrement=True,
)

audit_chains = Table(
    "audit_chains",
    metadata,
    Column("tenant", TENANT, primary_key=True),
    # Of the newest entry; who adds one locks this row.
    Column("number", BigInteger, nullable=False),
    Column("hash", HASH, nullable=False),
    # Of the last entry that was cut off at the beginning; 0: none was.
    Column("cut_number", BigInteger, nullable=False),
    Column("cut_hash", HASH, nullable=False),
)
