"""Puts the surfaces and what they share into one ASGI application.

Loading models, starting and draining belong to `main`.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from voiceforge.api.http.auth import ApiKey
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.docs import install_docs
from voiceforge.api.http.doors import AppWithDoors
from voiceforge.api.http.early_reply import EarlyReply
from voiceforge.api.http.errors import ErrorBoundary, ErrorReplies, install_handlers
from voiceforge.api.http.observe import Observe
from voiceforge.api.http.request_id import RequestIds
from voiceforge.api.http.temp_files import TempFiles
from voiceforge.api.native import batches, jobs, system, tus, webhooks
from voiceforge.api.native import models as native_models
from voiceforge.api.native import routes as native
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.tus_headers import TusFrame
from voiceforge.api.openai_compat import models as openai_models
from voiceforge.api.openai_compat import routes as openai
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.services.container import Services


def create_app(services: Services, config: HttpConfig) -> FastAPI:
    replies = ErrorReplies((OpenAIErrors(), NativeErrors()))

    def around(app: ASGIApp) -> ASGIApp:
        """The last one is the outermost."""
        if config.api_key is not None:
            app = ApiKey(app, key=config.api_key, replies=replies)
        app = ErrorBoundary(app, replies=replies)
        app = TusFrame(app, path=tus.PATH)
        app = TempFiles(app, folder=config.temp_dir)
        app = EarlyReply(app)
        app = Observe(app, metrics=services.metrics, replies=replies)
        return RequestIds(app)

    app = AppWithDoors(
        around,
        title="VoiceForge",
        version=config.version,
        summary="Self-hosted speech-to-text.",
        docs_url=None,
        redoc_url=None,
    )
    install_handlers(app, replies)
    app.open_doors(native.router(services, config))
    if services.jobs is not None:
        app.include_router(jobs.router(services, config))
    if services.batches is not None:
        app.include_router(batches.router(services.batches, services.transcriptions, config))
    if services.webhooks is not None:
        app.include_router(webhooks.router(services.webhooks, config))
    app.include_router(native_models.router(services))
    app.include_router(tus.router(services))
    app.include_router(system.router(services, config))
    app.include_router(openai_models.router(services.models))
    if config.features.openai_api:
        app.open_doors(openai.router(services, config))
    install_docs(app)
    return app
