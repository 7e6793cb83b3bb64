"""The page and its assets, from the package."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parent.parent / "web"

router = APIRouter(include_in_schema=False)


@router.get("/")
def page() -> FileResponse:
    """Return the page."""
    return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})


def add_assets(app: FastAPI) -> None:
    """Serve `web/` below `/static`."""
    app.mount("/static", StaticFiles(directory=WEB), name="static")
