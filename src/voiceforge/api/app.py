"""Puts the surfaces and what they share into one ASGI application.

Loading models, starting and draining belong to `main`.
"""

from __future__ import annotations

from fastapi import FastAPI

from voiceforge.api.http.auth import ApiKey
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.docs import install_docs
from voiceforge.api.http.early_reply import EarlyReply
from voiceforge.api.http.errors import ErrorBoundary, ErrorReplies, install_handlers
from voiceforge.api.http.observe import Observe
from voiceforge.api.http.request_id import RequestIds
from voiceforge.api.http.temp_files import TempFiles
from voiceforge.api.native import models as native_models
from voiceforge.api.native import routes as native
from voiceforge.api.native import system
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.openai_compat import models as openai_models
from voiceforge.api.openai_compat import routes as openai
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.services.container import Services


def create_app(services: Services, config: HttpConfig) -> FastAPI:
    replies = ErrorReplies((OpenAIErrors(), NativeErrors()))
    app = FastAPI(
        title="VoiceForge",
        version=config.version,
        summary="Self-hosted speech-to-text.",
        docs_url=None,
        redoc_url=None,
    )
    install_handlers(app, replies)
    app.include_router(native.router(services, config))
    app.include_router(native_models.router(services))
    app.include_router(system.router(services, config))
    app.include_router(openai_models.router(services.models))
    if config.features.openai_api:
        app.include_router(openai.router(services, config))
    install_docs(app)

    # The last one added is the outermost.
    if config.api_key is not None:
        app.add_middleware(ApiKey, key=config.api_key, replies=replies)
    app.add_middleware(ErrorBoundary, replies=replies)
    app.add_middleware(TempFiles, folder=config.temp_dir)
    app.add_middleware(EarlyReply)
    app.add_middleware(Observe, metrics=services.metrics, replies=replies)
    app.add_middleware(RequestIds)
    return app
