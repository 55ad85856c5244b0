"""The short way to routes that read their requests and make their replies themselves.

The framework knows these routes for its documentation, but what it does for others around each call costs
more than an earlier result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class AppWithDoors(FastAPI):
    """Calls the endpoints of some routers itself, where method and path are theirs to the letter.

    Args:
        around: what stands around the endpoints, and around everything else.
        complete: adds to the OpenAPI document what that answers.
        more: as FastAPI has it.
    """

    def __init__(
        self,
        around: Callable[[ASGIApp], ASGIApp],
        complete: Callable[[dict[str, Any]], None],
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self._complete = complete
        self._doors: dict[tuple[str, str], APIRoute] = {}
        self._short_way = around(self._endpoint)
        self.add_middleware(around)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self._complete(super().openapi())
        return super().openapi()

    def open_doors(self, router: APIRouter) -> None:
        """Include a router whose endpoints take a `Request` and nothing else, and return a `Response`."""
        self.include_router(router)
        for route in router.routes:
            assert isinstance(route, APIRoute)
            self._doors |= {(method, route.path): route for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) in self._doors:
            await self._short_way(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["route"] = self._doors[scope["method"], scope["path"]]
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
