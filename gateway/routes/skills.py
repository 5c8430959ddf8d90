"""The skills: every Semantic Kernel function at `POST /skills/{plugin}/{function}`, and the document that describes it.

The body is a flat JSON object with the function's parameters, the answer `{"value": ...}`. Functions do not stream.

`GET /skills/openapi.json` is an OpenAPI 3.0 document made for `Kernel.add_plugin_from_openapi`. That wants three things
in its `OpenAPIFunctionExecutionParameters`: the key, from `auth_callback` (fetch the document with it, too, and pass
it as `openapi_parsed_spec`); the gateway's URL in `server_url_validation_allowed_base_urls`, if it is plain HTTP or in
a private network; and a `timeout` for functions that ask a model, since Semantic Kernel gives up after 5 s.

Errors: 400 for a body that is not JSON, 404 for an unknown function, 422 for arguments that do not fit it, and the
model's own.
"""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from semantic_kernel import Kernel

from gateway.bridge import untrusted
from gateway.bridge.failures import published
from gateway.bridge.skill_schema import SkillFunction, document
from gateway.context import current
from gateway.errors import InvalidRequest, NotFound

_ANY_OBJECT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


class SkillEntry(BaseModel):
    plugin: str
    function: str
    description: str


class SkillIndex(BaseModel):
    skills: list[SkillEntry]


class SkillResult(BaseModel):
    value: Any


def router(kernel: Kernel) -> APIRouter:
    """The routes of every function in `kernel`, as it is now."""
    routes = APIRouter(prefix="/skills", tags=["skills"])
    skills = {
        (function.plugin_name, function.name): SkillFunction(function)
        for plugin in kernel.plugins.values()
        for function in plugin.functions.values()
    }

    def own() -> list[SkillFunction]:
        """Those that this key may call."""
        caller = current.get()
        return [skill for skill in skills.values() if caller.allows_skill(skill.plugin)]

    @routes.get("", operation_id="skills_list")
    async def list_skills() -> SkillIndex:
        """The skills that this key may call."""
        entries = [SkillEntry(plugin=s.plugin, function=s.name, description=s.description) for s in own()]
        return SkillIndex(skills=entries)

    @routes.get("/openapi.json", operation_id="skills_openapi")
    async def openapi(request: Request) -> dict[str, Any]:
        return document(own(), str(request.base_url).rstrip("/"))

    @routes.post("/{plugin}/{function}", operation_id="skills_invoke", openapi_extra=_ANY_OBJECT)
    async def invoke(plugin: str, function: str, request: Request) -> SkillResult:
        skill = skills.get((plugin, function))
        if skill is None or not current.get().allows_skill(plugin):
            raise NotFound(f"There is no function '{function}' in a skill '{plugin}'; GET /skills lists them.")
        arguments = skill.arguments(await _json(request))
        with published():
            return SkillResult(value=await skill.invoke(kernel, arguments))

    return routes


async def _json(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("The content type must be application/json.")
    return untrusted.loads(await request.body())
