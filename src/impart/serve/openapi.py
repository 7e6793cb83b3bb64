"""The OpenAPI document: FastAPI's, with one media type per problem, short ids, and the token where one is needed."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from impart.serve.problems import MEDIA_TYPE

__all__ = ["describe", "operation_id"]

_DIGITS: Final = "0f3a9c5e7b1d2468"
_HEX: Final = re.compile(r"\^\[0-9a-f\]\{(\d+)\}\$")
"""The pattern of an id, as routes state it."""
_EXAMPLES: Final = {
    "job_id": _DIGITS,
    "row": 17,
    "limit": 20,
    "w": 320,
    "t": 12.5,
    "at_s": 12.5,
    "start_s": 12.0,
    "end_s": 18.5,
}
"""Name of a parameter -> its example."""
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
    """Correct one operation: FastAPI gives GET and HEAD one id, and adds the type of an answer to its problems."""
    if method == "head":
        operation["operationId"] += "_head"
    for parameter in operation.get("parameters", ()):
        _add_example(parameter)
    for answer in operation["responses"].values():
        content = answer.get("content", {})
        if MEDIA_TYPE in content:
            answer["content"] = {MEDIA_TYPE: content[MEDIA_TYPE]}


def _add_example(parameter: dict[str, Any]) -> None:
    """Add an example to a parameter that has none: of ids by their pattern, of others by their name."""
    schema = parameter.get("schema", {})
    if "example" in parameter or "examples" in parameter or "examples" in schema:
        return
    digits = _HEX.fullmatch(schema.get("pattern", ""))
    example = (_DIGITS * 4)[: int(digits[1])] if digits else _EXAMPLES.get(parameter["name"])
    if example is not None:
        parameter["example"] = example
