"""The skills from a real Semantic Kernel that knows nothing but the OpenAPI document."""

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.openapi_plugin import OpenAPIFunctionExecutionParameters


@pytest.fixture
def kernel(stack):
    kernel = Kernel()
    # Semantic Kernel calls no http address, and no private one, that was not named.
    settings = OpenAPIFunctionExecutionParameters(timeout=120, server_url_validation_allowed_base_urls=[stack.url])
    kernel.add_plugin_from_openapi(
        "gateway", openapi_document_path=f"{stack.url}/skills/openapi.json", execution_settings=settings
    )
    return kernel


async def test_a_native_function(kernel):
    result = await kernel.invoke(
        plugin_name="gateway", function_name="time_days_between", start="2026-01-01", end="2026-03-01"
    )
    assert "59" in str(result.value)


async def test_a_prompt_function_asks_the_model(kernel, stack):
    before = stack.engine_metrics()["llamacpp:tokens_predicted_total"]
    text = "The river rose in spring. The people of the town moved to the hill."
    result = await kernel.invoke(plugin_name="gateway", function_name="text_summarize", text=text)
    assert str(result.value)
    assert stack.engine_metrics()["llamacpp:tokens_predicted_total"] > before
