"""Whether the server lives and is ready, and its metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict

from impart.serve.metrics import METRICS_TYPE
from impart.serve.problems import responses
from impart.serve.service import ServiceDep

router = APIRouter(tags=["system"])


class HealthOut(BaseModel):
    """The server lives."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class ReadyOut(BaseModel):
    """The model and the index are in memory."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: Literal["ready"] = "ready"


@router.get("/health", summary="Whether the server lives", responses=responses(429))
async def health() -> HealthOut:
    """Answer at once, whatever the state of the index; it needs no token."""
    return HealthOut()


@router.get("/ready", summary="Whether searches are answered at once", responses=responses(401, 429, 503))
def ready(service: ServiceDep) -> ReadyOut:
    """Answer 200 once the model and the index are in memory; until then, the problem says what is missing."""
    service.refresher.check()
    return ReadyOut()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Text format of Prometheus.",
            "content": {"text/plain": {"example": "impart_query_seconds_count 12.0\n"}},
        },
        **responses(401, 429),
    },
)
def metrics(service: ServiceDep) -> Response:
    """Return histograms of decoding, encoding, retrieval, searches and requests, and gauges of index and jobs."""
    return Response(service.metrics.text(), media_type=METRICS_TYPE)
