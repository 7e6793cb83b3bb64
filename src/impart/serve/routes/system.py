"""Whether the server lives and is ready."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from impart.serve.problems import Problem, responses
from impart.serve.service import ServiceDep

router = APIRouter(tags=["system"])


class StatusOut(BaseModel):
    """Status of the server."""

    status: str


@router.get("/health", summary="Whether the server lives")
def health() -> StatusOut:
    """Answer at once, whatever the state of the index."""
    return StatusOut(status="ok")


@router.get("/ready", summary="Whether searches can be answered", responses=responses(503))
def ready(service: ServiceDep) -> StatusOut:
    """Answer 200 once the index exists."""
    if not service.index.exists:
        raise Problem(503, "no_index", f"there is no index at {service.index.path}: impart index FOLDER")
    return StatusOut(status="ready")
