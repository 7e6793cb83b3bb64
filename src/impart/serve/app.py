"""The application: routes, middlewares, and the service that they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from impart import __version__
from impart.serve.openapi import describe, operation_id
from impart.serve.problems import add_handlers, responses
from impart.serve.routes import (
    duplicates,
    exports,
    frames,
    jobs,
    media,
    names,
    page,
    references,
    search,
    system,
    videos,
)
from impart.serve.safety.stack import REFUSALS, add_safety
from impart.serve.service import Service
from impart.serve.settings import ServeSettings

__all__ = ["API", "create_app"]

API = "/api/v1"
_ROUTERS = (
    search.router,
    videos.router,  # one per line
    frames.router,
    media.router,
    names.router,
    references.router,
    duplicates.router,
    jobs.router,
    exports.router,
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
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="IMPART",
        version=__version__,
        summary="Search a library of videos and photos by text or image, down to the second.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        form_limits={"max_files": settings.upload_images, "max_fields": 20, "max_part_size": 1 << 20},
    )
    app.state.service = service
    app.state.stopping = add_safety(app, settings, service.metrics)
    app.state.stopping.first(service.jobs.begin_close)
    add_handlers(app)
    for router in _ROUTERS:
        app.include_router(router, prefix=API, responses=responses(*REFUSALS))
    app.include_router(system.router, responses=responses(400, 421, 431, 500))
    app.include_router(page.router)
    page.add_assets(app)
    describe(app, with_token=settings.token is not None)
    return app
