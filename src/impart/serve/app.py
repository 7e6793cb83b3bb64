"""The application: routes, middlewares, and the service that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from impart import __version__
from impart.serve.problems import add_handlers
from impart.serve.routes import frames, media, page, search, system, videos
from impart.serve.service import Service
from impart.serve.settings import ServeSettings

__all__ = ["API", "create_app"]

API = "/api/v1"
_ROUTERS = (
    search.router,
    videos.router,  # one per line
    frames.router,
    media.router,
)


def create_app(settings: ServeSettings) -> FastAPI:
    """Make the application of one index.

    Args:
        settings: of the server.

    Raises:
        VideoIndexError: the index is damaged.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.media.warm()
        yield
        service.close()

    app = FastAPI(
        title="IMPART",
        version=__version__,
        summary="Search a library of videos and photos by text or image, down to the second.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
    )
    app.state.service = service
    add_handlers(app)
    for router in _ROUTERS:
        app.include_router(router, prefix=API)
    app.include_router(system.router)
    app.include_router(page.router)
    page.add_assets(app)
    return app
