"""The OpenAPI document: every route is described, and answers as it says, whatever it is sent."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from starlette.testclient import TestClient

from helpers.served import HERE, write_library
from impart.serve.app import API, create_app
from impart.serve.settings import ServeSettings

DOCUMENT = f"{API}/openapi.json"
SETTINGS = hypothesis.settings(
    derandomize=True, deadline=None, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)
EXAMPLES = 300  # in all, shared by the routes and by valid and invalid requests
METHODS = ("get", "put", "post", "delete", "patch", "head")
UNCHECKED = ("positive_data_acceptance", "negative_data_rejection", "use_after_free", "ensure_resource_availability")
"""A valid query may contradict itself, and more is accepted than the document promises; the others need links."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServeSettings:
    folder = tmp_path_factory.mktemp("openapi")
    index = write_library(folder)
    return ServeSettings(index=index, roots=(folder / "films",), cache=folder / "cache", requests_per_s=1e6)


@pytest.fixture
def app(settings: ServeSettings) -> FastAPI:
    """An application; schemathesis and `TestClient` start and end it."""
    return create_app(settings)


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def has_example(part: Any, document: dict[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a part of the document has an example, also in the schemas that it refers to."""
    if isinstance(part, list):
        return any(has_example(one, document, seen) for one in part)
    if not isinstance(part, dict):
        return False
    if part.get("example") is not None or part.get("examples"):
        return True
    name = part.get("$ref", "").removeprefix("#/components/schemas/")
    if name and name not in seen:
        return has_example(document["components"]["schemas"][name], document, seen | {name})
    return any(has_example(one, document, seen) for one in part.values())


def test_every_route_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name
        successes = {status: one for status, one in operation["responses"].items() if status < "300"}
        described = [operation.get("requestBody"), operation.get("parameters"), successes]
        nothing_to_show = set(successes) == {"204"} and not operation.get("requestBody")
        assert nothing_to_show or any(has_example(one, document) for one in described if one), (
            f"{name} lacks an example"
        )


def test_every_route_of_the_api_documents_its_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        refused = {status for status in operation["responses"] if status >= "400"}
        if API in name:
            assert {"400", "401", "403", "413", "415", "422", "429", "500"} <= refused, name
        for status in refused:
            content = operation["responses"][status]["content"]
            assert list(content) == ["application/problem+json"], (name, status)


def test_operation_ids_are_unique_and_short(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids)), sorted(ids)
    assert all(one.isidentifier() and "api_v1" not in one for one in ids), ids


def test_examples_of_parameters_are_valid(document: dict[str, Any]) -> None:
    found = 0
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if "pattern" in parameter["schema"] and "example" in parameter:
                found += 1
                assert re.search(parameter["schema"]["pattern"], parameter["example"]), name
            assert parameter["in"] != "path" or has_example(parameter, document), (name, parameter["name"])
    assert found >= 2


def test_the_document_is_complete_json(app: FastAPI, document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document)) == document
    assert document["info"]["version"]
    routes = {f"{API}/search", f"{API}/videos", f"{API}/videos/{{video_id}}", "/health", "/ready", "/metrics"}
    assert routes <= set(document["paths"])


def test_requests_made_from_the_document_are_answered_as_documented(app: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi(DOCUMENT, app, headers={"Host": "127.0.0.1:8765"})
    found = [result.ok() for result in schema.get_all_operations()]
    ids = itertools.cycle([*app.state.service.records(), None])
    each = max(3, EXAMPLES // (2 * len(found)))
    unchecked = CHECKS.get_by_names(UNCHECKED)
    answered: dict[str, set[int]] = {operation.label: set() for operation in found}

    def check(case: schemathesis.Case) -> None:
        if "video_id" in (case.path_parameters or {}) and (known := next(ids)) is not None:
            case.path_parameters["video_id"] = known
        response = case.call(base_url=HERE)
        answered[case.operation.label].add(response.status_code)
        case.validate_response(response, excluded_checks=unchecked)

    for operation, mode in itertools.product(found, GenerationMode):
        run = hypothesis.given(case=operation.as_strategy(generation_mode=mode))(check)
        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong in a request without parameters
            hypothesis.settings(SETTINGS, max_examples=each)(run)()
    assert all(answered.values())
    assert 200 in answered["GET /api/v1/videos"]
    assert 200 in answered["GET /api/v1/videos/{video_id}"]
    assert not any(status >= 500 and status != 503 for statuses in answered.values() for status in statuses)


def test_the_examples_of_a_search_are_answered(app: FastAPI, document: dict[str, Any]) -> None:
    examples = document["components"]["schemas"]["SearchRequest"]["examples"]
    with TestClient(app, base_url=HERE) as client:
        for example in examples:
            answer = client.post(f"{API}/search", json=example)
            assert answer.status_code == 200, (example, answer.text)
            assert set(answer.json()) == set(document["components"]["schemas"]["SearchOut"]["properties"])


def test_examples_of_bodies_are_valid(app: FastAPI, document: dict[str, Any]) -> None:
    known = next(iter(app.state.service.records()))
    found = 0
    with TestClient(app, base_url=HERE) as client:
        for name, operation in operations(document):
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            method, path = name.split(" ")
            path = re.sub(r"\{\w+\}", known, path)
            for example in schema.get("examples", ()):
                body = json.loads(re.sub(r'"[0-9a-f]{16}"', f'"{known}"', json.dumps(example)))
                answer = client.request(method, path, json=body)
                found += 1
                assert answer.is_success or answer.json()["code"] != "invalid_request", (name, answer.text)
    assert found >= 10
