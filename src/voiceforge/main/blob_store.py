"""Opens the store of blobs that the settings name."""

from __future__ import annotations

from pydantic import SecretStr

from voiceforge.errors import DependencyMissing
from voiceforge.infra.blobs.address import StoreAccess, parse_store_url
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.main.settings import Settings


def open_blobs(settings: Settings) -> Blobs:
    """One store for a process; opened after a fork, not before it. Connects when it is first asked.

    Raises:
        DependencyMissing: the library for object stores is not installed.
    """
    wish = settings.store
    if wish.url is None:
        return LocalDiskBlobs(settings.data_dir / "blobs")
    try:
        from voiceforge.infra.blobs.object_store import ObjectStoreBlobs
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "store.url needs the library for object stores. Run: pip install 'voiceforge[stores]'"
        ) from error
    return ObjectStoreBlobs(
        StoreAccess(
            parse_store_url(wish.url),
            endpoint=wish.endpoint,
            region=wish.region,
            access_key_id=_plain(wish.access_key_id),
            secret_access_key=_plain(wish.secret_access_key),
            path_style=wish.path_style,
            allow_http=wish.allow_http,
            encryption=wish.encryption,
            kms_key_id=wish.kms_key_id,
            timeout_s=wish.timeout_s,
        )
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
