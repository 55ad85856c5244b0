"""Puts the surfaces and what they share into one ASGI application.

Loading models, starting and draining belong to `main`.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from voiceforge.api.deepgram_compat import routes as deepgram
from voiceforge.api.deepgram_compat.errors import PATH as LISTEN_PATH
from voiceforge.api.deepgram_compat.errors import DeepgramErrors
from voiceforge.api.deepgram_compat.frame import ListenFrame
from voiceforge.api.deepgram_compat.live import LiveDoor, keys_in_subprotocols
from voiceforge.api.http.auth import OPEN_PATHS, Authenticate, SurfaceKeys
from voiceforge.api.http.bodies import BodyLimits
from voiceforge.api.http.callers import CallerRules, CheckCallers
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.docs import ASSETS, install_docs
from voiceforge.api.http.doors import AppWithDoors
from voiceforge.api.http.early_reply import EarlyReply
from voiceforge.api.http.errors import ErrorBoundary, ErrorReplies, install_handlers
from voiceforge.api.http.observe import Observe
from voiceforge.api.http.proxies import believing
from voiceforge.api.http.rate_limits import RateLimits
from voiceforge.api.http.request_id import RequestIds
from voiceforge.api.http.response_headers import ResponseHeaders
from voiceforge.api.http.shared_answers import add_shared_answers
from voiceforge.api.http.sockets import open_socket
from voiceforge.api.http.temp_files import TempFiles
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native import (
    accounts,
    asyncapi,
    audit,
    batches,
    jobs,
    keys,
    oidc,
    privacy,
    system,
    tenants,
    tus,
    usage,
    users,
    webhooks,
)
from voiceforge.api.native import models as native_models
from voiceforge.api.native import routes as native
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.stream import SURFACE_KEYS as STREAM_KEYS
from voiceforge.api.native.stream import StreamDoor
from voiceforge.api.native.stream_schemas import STREAM_PATH
from voiceforge.api.native.tus_headers import TusFrame
from voiceforge.api.openai_compat import models as openai_models
from voiceforge.api.openai_compat import realtime_door as realtime
from voiceforge.api.openai_compat import realtime_routes
from voiceforge.api.openai_compat import routes as openai
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.api.openai_compat.rate_fields import rate_fields
from voiceforge.services.authentication import Authentication
from voiceforge.services.container import Services
from voiceforge.speech.options import StreamOptions

_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def create_app(services: Services, config: HttpConfig) -> FastAPI:
    deepgram_errors = [DeepgramErrors()] if config.features.deepgram_api else []
    replies = ErrorReplies((OpenAIErrors(), *deepgram_errors, NativeErrors()))
    listening = SurfaceKeys(covers=DeepgramErrors().covers, in_subprotocols=keys_in_subprotocols)
    authentication = services.authentication or Authentication(config.api_key)
    tokens = authentication.short_tokens
    surfaces = (listening, realtime.SURFACE_KEYS, STREAM_KEYS)
    open_paths = OPEN_PATHS
    if services.people is not None:
        open_paths = OPEN_PATHS | accounts.OPEN_PATHS | oidc.OPEN_PATHS
    callers = CallerRules(
        hosts=config.allowed_hosts,
        addresses=config.any_address,
        origins=config.cors_origins,
        open=authentication.is_open,
    )

    def around(app: ASGIApp) -> ASGIApp:
        """The last one is the outermost."""
        if services.limits is not None:
            own_fields = {OpenAIErrors.name: rate_fields}
            app = RateLimits(app, services.limits, replies, own_fields, services.ledger)
        app = Authenticate(app, authentication, replies, surfaces, open_paths)
        app = ErrorBoundary(app, replies=replies)
        app = ListenFrame(app)
        app = TusFrame(app, path=tus.PATH)
        app = TempFiles(app, folder=config.temp_dir)
        if config.cors_origins:
            app = CORSMiddleware(
                app,
                allow_origins=config.cors_origins,
                allow_methods=_CORS_METHODS,
                allow_headers=["*"],
                expose_headers=["*"],
            )
        app = CheckCallers(app, callers, replies, exempt=OPEN_PATHS)
        app = EarlyReply(app, BodyLimits(config.max_body_bytes, config.upload_idle_s))
        app = ResponseHeaders(app, public=ASSETS)
        app = Observe(app, metrics=services.metrics, replies=replies)
        app = RequestIds(app)
        if config.trusted_proxies:
            return believing(config.trusted_proxies, app)
        return app

    app = AppWithDoors(
        around,
        lambda schema: add_shared_answers(schema, replies, OPEN_PATHS),
        title="VoiceForge",
        version=config.version,
        summary="Self-hosted speech-to-text.",
        docs_url=None,
        redoc_url=None,
    )
    install_handlers(app, replies)
    app.open_doors(system.health_router(services.health))
    app.open_doors(native.router(services, config))
    if services.jobs is not None:
        app.include_router(jobs.router(services, config))
    if services.batches is not None:
        app.include_router(
            batches.router(services.batches, services.transcriptions, config, services.uploads)
        )
    if services.webhooks is not None:
        app.include_router(webhooks.router(services.webhooks, config))
    if services.people is not None:
        app.include_router(accounts.router(services.people, config))
        app.include_router(oidc.router(services.people))
        app.include_router(users.router(services.people, config))
        app.include_router(tenants.router(services.people, config))
    if services.keys is not None:
        app.include_router(keys.keys_router(services.keys, config))
    app.include_router(keys.tokens_router(tokens, config))
    if services.streams is not None:
        door = StreamDoor(services.streams, services.transcriptions, config.stream_resume_s)
        open_socket(app, STREAM_PATH, door.serve)
        app.include_router(asyncapi.router(config.version))
    if services.audit is not None:
        app.include_router(audit.router(services.audit))
    if services.personal_data is not None:
        app.include_router(privacy.router(services.personal_data))
    if services.usage is not None:
        app.include_router(usage.router(services.usage))
    app.include_router(native_models.router(services))
    app.include_router(tus.router(services))
    app.include_router(system.router(services, config))
    app.include_router(openai_models.router(services.models))
    if config.features.openai_api:
        app.open_doors(openai.router(services, config))
        uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)
        app.include_router(realtime_routes.router(services.streams, tokens, uploads))
        open_socket(app, realtime.PATH, realtime.RealtimeDoor(services.streams, tokens).serve)
    if config.features.deepgram_api:
        app.open_doors(deepgram.router(services, config, tokens))
        open_socket(app, LISTEN_PATH, LiveDoor(services, StreamOptions()).serve)
    install_docs(app)
    return app
