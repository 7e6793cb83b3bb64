"""The OpenAPI document: FastAPI's, with one media type per problem, short ids, and the token where one is needed."""

from __future__ import annotations

import warnings
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from impart.serve.problems import MEDIA_TYPE

__all__ = ["describe", "operation_id"]

_BEARER = {"type": "http", "scheme": "bearer", "description": "The token in the file of `--token-file`."}


def operation_id(route: APIRoute) -> str:
    """Make the id of an operation of its tag and the name of its function: generated clients call it so."""
    return "_".join([*map(str, route.tags[:1]), route.name])


def describe(app: FastAPI, *, with_token: bool) -> None:
    """Replace the document of an application by one that is exact.

    Args:
        with_token: whether requests need the token.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Duplicate Operation ID")  # of GET and HEAD, see `_correct`
                document = make()
            for item in document["paths"].values():
                for method, operation in item.items():
                    _correct(method, operation)
            if with_token:
                document["components"]["securitySchemes"] = {"token": _BEARER}
                document["security"] = [{"token": []}]
                document["paths"]["/health"]["get"]["security"] = []
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _correct(method: str, operation: dict[str, Any]) -> None:
    """Correct one operation: FastAPI adds the type of an answer to its problems, and gives GET and HEAD the same id."""
    if method == "head":
        operation["operationId"] += "_head"
    for answer in operation["responses"].values():
        content = answer.get("content", {})
        if MEDIA_TYPE in content:
            answer["content"] = {MEDIA_TYPE: content[MEDIA_TYPE]}
