"""The OpenAPI document: bodies of requests, schemas of answers and of problems, and routes under a resource's name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unalike import __version__
from unalike.serve.problems import MEDIA_TYPE, title_of

Handler = Callable[[Request, str | None], Awaitable[Response]]
PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
# Problems that any endpoint may answer.
COMMON_PROBLEMS = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"apiKey": []}]


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Name of the kind of problem, urn:unalike:problem:KIND.")
    title: str = Field(description="Phrase of the status.")
    status: int
    detail: str = Field(description="What was found, what was expected and what to do, in one line.")
    found: str
    expected: str
    remedy: str
    request_id: str


class DirectRoute(APIRoute):
    """A route whose endpoint gets the request and the parts of the path as they are: FastAPI has nothing to resolve for it.

    Its dependencies, bodies and answers cost 0.2 ms a request (own measurement, 2026-11-29), which the answer waits for.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of this route's path; 405 for another method."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send), **scope["path_params"])
        await response(scope, receive, send)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an endpoint that answers these problems besides the common ones."""
    return {
        status: {"description": title_of(status), "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}}}
        for status in sorted({*COMMON_PROBLEMS, *statuses})
    }


def image_body(
    fields: Mapping[str, str], parameters: Mapping[str, Any] | None = None, *, raw: bool = True,
    required: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The ``openapi_extra`` of an endpoint that takes images.

    Args:
        fields: name of a field of images -> its description.
        parameters: name of a further parameter -> its schema.
        raw: whether one image may be the body itself.
        required: the fields that must be there; all by default.
    """
    image = {
        "anyOf": [
            {"type": "string", "description": "base64"},
            {
                "type": "object", "additionalProperties": False,
                "properties": {
                    "content": {"type": "string", "description": "base64"}, "name": {"type": "string"},
                    "url": {"type": "string", "description": "address on a host that the service allows"},
                },
            },
        ]
    }  # fmt: skip
    file = {"type": "string", "format": "binary"}
    further = dict(parameters or {})
    form = {name: {"type": "array", "items": file, "description": text} for name, text in fields.items()}
    in_json = {
        name: {"anyOf": [image, {"type": "array", "items": image}], "description": text}
        for name, text in fields.items()
    }
    needs = list(fields) if required is None else list(required)
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": {"type": "object", "properties": {**form, **further}, "required": needs}},
        "application/json": {"schema": {"type": "object", "properties": {**in_json, **further}, "required": needs,
                                        "additionalProperties": False}},
    }  # fmt: skip
    if raw:
        content |= {kind: {"schema": file} for kind in ("image/jpeg", "image/png", "application/octet-stream")}
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in further.items()
        if raw and schema.get("type") in ("integer", "number", "string", "boolean")
    ]  # fmt: skip
    return {"requestBody": {"required": True, "content": content}, "parameters": query}


def json_body(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """The ``openapi_extra`` of an endpoint that takes a JSON object."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}


def query_parameters(**schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The ``openapi_extra`` of an endpoint with parameters in its address."""
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": dict(schema)} for name, schema in schemas.items()
        ]
    }


def add_scoped(
    router: APIRouter, method: str, collection: str, path: str, handler: Handler, *, answer: type[BaseModel] | None = None,
    summary: str, extra: dict[str, Any] | None = None, status: int = 200, statuses: Sequence[int] = (),
) -> None:  # fmt: skip
    """Add an endpoint twice: ``/v1/PATH`` for the default resource, and ``/v1/COLLECTION/{name}/PATH``.

    Args:
        router: the router.
        method: the HTTP method.
        collection: ``galleries``, ``inspectors`` or ``assets``.
        path: what follows, with a slash at its front.
        handler: takes the request and the resource's name, or None.
        answer: model of the answer's JSON.
        summary: one line.
        extra: ``openapi_extra``.
        status: of the answer.
        statuses: of further problems.
    """

    async def default(request: Request) -> Response:
        return await handler(request, None)

    async def named(request: Request, name: Annotated[str, Path(description="Name of the resource.")]) -> Response:
        return await handler(request, name)

    default.__doc__ = named.__doc__ = handler.__doc__
    responses = problems(*statuses)
    if answer is not None:
        responses[status] = {"model": answer, "description": title_of(status)}
    for prefix, endpoint in (("", default), (f"/{collection}/{{name}}", named)):
        router.add_api_route(
            f"/v1{prefix}{path}", endpoint, methods=[method], summary=summary, responses=responses, openapi_extra=extra,
            status_code=status, response_class=Response, tags=[path.split("/")[1]],
            operation_id=method.lower() + path.replace("/", "_") + (f"_of_{collection}" if prefix else ""),
            route_class_override=DirectRoute,
        )  # fmt: skip


def set_document(app: FastAPI) -> None:
    """Make ``app.openapi()`` the complete document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            content = get_openapi(
                title="unalike", version=__version__, openapi_version="3.1.0", routes=app.routes,
                summary="Recognition, inspection and verification of images.",
            )  # fmt: skip
            components = content.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = ProblemDocument.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operation in (entry for path in content["paths"].values() for entry in path.values()):
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            content["security"] = SECURITY
            app.openapi_schema = content
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
