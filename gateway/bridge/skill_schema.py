"""A Semantic Kernel function as an HTTP operation: one model checks its arguments and describes them.

Semantic Kernel's OpenAPI import sets the form: a unique `operationId`, a body with flat properties of one type each, no
parameters beside it, a JSON response first, security schemes that resolve.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, KernelFunction
from semantic_kernel.functions.kernel_parameter_metadata import KernelParameterMetadata

from gateway.errors import UnprocessableInput

_TYPES: dict[Any, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string", "nullable": True} for name in ("message", "type", "param", "code")},
        }
    },
}


class SkillFunction:
    """One function: its name, its arguments and its answer."""

    def __init__(self, function: KernelFunction) -> None:
        self.plugin = function.plugin_name
        self.name = function.name
        self.description = (function.description or "").strip()
        self._function = function
        fields = {
            parameter.name: _field(parameter)
            for parameter in function.parameters
            if parameter.name and parameter.include_in_function_choices
        }
        self._model: type[BaseModel] = create_model(
            f"{self.plugin}_{self.name}", __config__=ConfigDict(strict=True, extra="forbid"), **fields
        )

    def arguments(self, value: Any) -> KernelArguments:
        """Checks a request body against the function's parameters.

        Raises:
            UnprocessableInput: with the parameter's name in `param`.
        """
        try:
            checked = self._model.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            parameter = str(first["loc"][0]) if first["loc"] else None
            message = f"Parameter '{parameter}': {first['msg']}." if parameter else "The body must be a JSON object."
            raise UnprocessableInput(message, param=parameter) from error
        return KernelArguments(**checked.model_dump(exclude_unset=True))

    async def invoke(self, kernel: Kernel, arguments: KernelArguments) -> Any:
        """The function's value; a prompt function's is the model's text."""
        result = await self._function.invoke(kernel, arguments)
        if result is None or self._function.is_prompt:
            return str(result or "")
        return result.value

    def operation(self) -> dict[str, Any]:
        """The OpenAPI operation of the function."""
        returned = self._function.return_parameter
        value = {"type": "string"} if self._function.is_prompt or not returned else returned.schema_data
        body = self._model.model_json_schema()
        for schema in body["properties"].values():
            if schema.get("default", ...) is None:
                del schema["default"]
        answer = {"type": "object", "properties": {"value": value}, "required": ["value"]}
        return {
            "operationId": f"{self.plugin}_{self.name}",
            "summary": self.description,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The value.", "content": {"application/json": {"schema": answer}}},
                "default": {"description": "An error.", "content": {"application/json": {"schema": _ERROR}}},
            },
            "security": [{"bearer": []}],
        }


def _field(parameter: KernelParameterMetadata) -> Any:
    type_ = _TYPES.get((parameter.schema_data or {}).get("type"), Any)
    if not parameter.is_required:
        return type_, Field(parameter.default_value, description=parameter.description)
    # Who requires a text means one with something in it.
    return type_, Field(description=parameter.description, min_length=1 if type_ is str else None)


def document(skills: Iterable[SkillFunction], server: str) -> dict[str, Any]:
    """The OpenAPI document of `skills`.

    Args:
        server: where they are, an absolute URL without a path at its end.
    """
    return {
        "openapi": "3.0.3",
        "info": {"title": "Skills of the LLM access gateway", "version": "1.0.0"},
        "servers": [{"url": server}],
        "paths": {f"/skills/{skill.plugin}/{skill.name}": {"post": skill.operation()} for skill in skills},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }
