"""The one OpenAPI document."""

import pytest
from openapi_spec_validator import validate

from gateway.app import create_app
from gateway.completion.endpoint import Endpoint
from gateway.settings import Settings


@pytest.fixture(scope="module")
def document():
    return create_app(Settings.load()).openapi()


def test_is_valid(document):
    validate(document)


def test_describes_the_completion_endpoints_with_their_schemas(document):
    for endpoint in Endpoint:
        schema = document["paths"][endpoint]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert schema.rpartition("/")[2] in document["components"]["schemas"]


def test_operation_ids_are_unique(document):
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
