"""Keys as JSON, the same over HTTP and on the command line."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from voiceforge.services.keys import ApiKey, NewKey


def key_document(key: ApiKey) -> dict[str, Any]:
    """All that may be told of it. Times are ISO 8601 in UTC."""
    expired = key.expires_at is not None and key.expires_at <= time.time()
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "status": "revoked" if key.revoked_at is not None else "expired" if expired else "active",
        "role": key.role,
        "user_id": key.user_id,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "addresses": None if key.addresses is None else list(key.addresses),
        "tier": key.tier,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
        "replaced_by": key.replaced_by,
    }


def new_key_document(made: NewKey) -> dict[str, Any]:
    """With the key itself."""
    return key_document(made.key) | {"key": made.text}


def _time(unix_s: float | None) -> str | None:
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
