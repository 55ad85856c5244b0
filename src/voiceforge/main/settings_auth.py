"""Settings of who may call, and of what keeps their secrets."""

from __future__ import annotations

from pydantic import Field, SecretStr

from voiceforge.main.settings_values import Section


class AuthSettings(Section):
    """People and keys."""

    required: bool = Field(
        default=False,
        description="Whoever calls must be known, by `api_key` or by a key or a person in the database.",
    )
    failures_per_minute: int = Field(
        default=30,
        ge=0,
        description="So often an address may come with wrong credentials before each process of the server "
        "asks it to wait; 0: without end.",
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        examples=["at-least-32-characters-that-nobody-can-guess"],
        description="What keys are hashed and tokens are sealed with; the same on every machine that shares "
        "a database. Unset: a file in `data_dir`, made at the first start.",
    )
