"""Problems: errors of the API as `application/problem+json` (RFC 9457), each with a stable `code`.

Programs compare `code`; `title` and `detail` are for people and may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from impart.errors import (
    ConfigError,
    DataError,
    DecodeError,
    EncoderMismatchError,
    ImpartError,
    IndexLockedError,
    MissingExtraError,
    QueryError,
    VideoIndexError,
)

__all__ = ["MEDIA_TYPE", "Problem", "ProblemOut", "add_handlers", "problem_response", "responses"]

MEDIA_TYPE = "application/problem+json"


class ProblemOut(BaseModel):
    """An error of the API."""

    type: str = Field("about:blank", description="Always `about:blank`: `code` names the kind.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    code: str = Field(description="A stable name of the problem, for programs.", examples=["video_not_found"])
    detail: str = Field(description="What is wrong and what helps, for people.")
    errors: list[dict[str, Any]] | None = Field(None, description="With `invalid_request`: place and message of each.")


class Problem(Exception):
    """An error of a request, raised by routes and middlewares.

    Args:
        status: of HTTP.
        code: stable name, such as `video_not_found`.
        detail: what is wrong, and what helps.
        headers: of the answer, such as `Retry-After`.
        errors: with `invalid_request`, place and message of each.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.errors = dict(headers or {}), errors


_KINDS: tuple[tuple[type[ImpartError], int, str], ...] = (
    (IndexLockedError, 409, "index_locked"),
    (EncoderMismatchError, 409, "encoder_mismatch"),
    (MissingExtraError, 501, "missing_extra"),
    (QueryError, 400, "bad_query"),
    (ConfigError, 400, "bad_value"),
    (DecodeError, 422, "cannot_decode"),
    (DataError, 422, "bad_data"),
    (VideoIndexError, 503, "index_unavailable"),
    (ImpartError, 500, "failed"),
)
"""Errors of the library -> status and code; the first that fits."""


def problem_response(problem: Problem) -> JSONResponse:
    """Make the answer of a problem."""
    title = HTTPStatus(problem.status).phrase
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail.encode("utf-8", "backslashreplace").decode("utf-8"),  # a file name may be no text
    }
    if problem.errors is not None:
        body["errors"] = problem.errors
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Turn the errors of routes into problems."""

    @app.exception_handler(Problem)
    async def _own(_: Request, problem: Problem) -> JSONResponse:
        return problem_response(problem)

    @app.exception_handler(ImpartError)
    async def _of_the_library(_: Request, error: ImpartError) -> JSONResponse:
        status, code = next((status, code) for kind, status, code in _KINDS if isinstance(error, kind))
        headers = {"Retry-After": "5"} if status in (409, 503) else None
        return problem_response(Problem(status, code, str(error), headers=headers))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [{"at": [str(part) for part in one["loc"]], "message": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{'.'.join(one['at'])}: {one['message']}" for one in errors)
        return problem_response(Problem(422, "invalid_request", detail, errors=errors))

    @app.exception_handler(HTTPException)
    async def _of_starlette(request: Request, error: HTTPException) -> JSONResponse:
        phrase, detail, path = HTTPStatus(error.status_code).phrase, str(error.detail), request.url.path[:200]
        if detail == phrase and error.status_code == 404:
            detail = f"there is nothing at {path!r}: {app.openapi_url} lists the routes"
        elif detail == phrase and error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            detail = f"{path!r} takes {allowed or 'other methods'}, not {request.method[:20]}"
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        return problem_response(Problem(error.status_code, code, detail, headers=error.headers))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems of a route in the OpenAPI document.

    >>> sorted(responses(404))
    [404]
    """
    return {
        status: {
            "model": ProblemOut,
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
        }
        for status in statuses
    }
