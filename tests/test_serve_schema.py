"""The server keeps to its own OpenAPI schema, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tiny_server import served, tiny_second_pass
from tiny_world import fill_cache

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.checks")
conformance = pytest.importorskip("schemathesis.specs.openapi.checks")

PATHS = ("/v1/audio/transcriptions", "/v1/rescore", "/v1/combine", "/v1/models", "/ready")
CHECKS = [
    checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        with served(tiny_second_pass()) as server:
            schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
            found = [operation.ok() for operation in schema.get_all_operations()]
            yield {operation.path: operation for operation in found}


@pytest.mark.parametrize("path", PATHS)
def test_answers_fit_the_schema(operations: dict[str, Any], path: str) -> None:
    """No 5xx, and no status, type or body outside what is promised. Whether bytes are audio no
    schema says, so that a request which fits may be refused."""

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(operations[path].as_strategy())
        case.call_and_validate(checks=CHECKS)

    ask()
