"""OpenAPI 3.1 of the HTTP API, made of the operations and of the shapes that check what comes."""

from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from .. import __version__
from . import shapes
from .operations import OPERATIONS, Operation, Parameter

__all__ = ["document"]

REF = "#/components/schemas/{name}"
#: What is wrong with a request, by status; 404 and 405 are those of the operations.
FAULTS = {
    "400": "A fault in the request; `field` says where",
    "401": "No key, or one that is not known",
    "403": "No key is set, or this one is not for that",
    "409": "This does not go with what the channel keeps",
    "413": "The body is too large",
    "415": "The body is not said to be JSON",
    "429": "Too many wrong keys from this address",
    "500": "The server failed; its log says why",
    "503": "The store of what channels keep did not answer",
}
STORING = {"broadcast", "publish", "log", "clear", "delete"}  # operations that a store has to do with


def _one_of(*fields: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [field]} for field in fields]}


def _any_of(*fields: str) -> dict[str, Any]:
    return {"anyOf": [{"required": [field]} for field in fields]}


MESSAGE = _one_of("message", "text", "base64")
#: What a shape needs beyond each field by itself.
NEEDS: dict[str, list[dict[str, Any]]] = {
    "Broadcast": [MESSAGE, _one_of("channel", "channels")],
    "Send": [MESSAGE, _any_of("users", "to")],
    "Subscribe": [_any_of("users", "to")],
    "Unsubscribe": [_any_of("users", "to")],
    "Close": [_any_of("users", "to", "session", "channel")],
    "Command": [_one_of("broadcast", "send", "subscribe", "unsubscribe", "close")],
}


def document(path: str, endpoints: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the description of the API at a path, on a server that has these endpoints."""
    types = [t for o in OPERATIONS for t in (*_parts(o.answer), *(() if o.body in (None, bytes) else (o.body,)))]
    described = list(dict.fromkeys([*types, shapes.Connections, shapes.Failure]))
    _, components = msgspec.json.schema_components(described, ref_template=REF)
    for name, needs in NEEDS.items():
        components[name]["allOf"] = needs
    components["Results"]["properties"]["results"]["items"] = {
        "anyOf": [_ref("Connections"), _ref("ConnectionsByChannel"), _ref("Failure")]
    }
    if endpoints:
        components["Broadcast"]["properties"]["endpoint"]["enum"] = list(endpoints)
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(path + operation.path, {})[operation.method.lower()] = _operation(operation, endpoints)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastws",
            "version": __version__,
            "description": "Publish to WebSocket connections, and see who is there. Counts are of those addressed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _parts(answer: Any) -> tuple[Any, ...]:
    """The shapes of a union, or the only one."""
    parts = get_args(answer) if get_args(answer) else (answer,)
    return tuple(part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct))


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(name=name)}


def _operation(operation: Operation, endpoints: Sequence[str]) -> dict[str, Any]:
    has_key = operation.name != "openapi"
    faults = [status for status in FAULTS if has_key or status == "500"]
    if operation.body is None:
        faults = [status for status in faults if status not in ("413", "415")]
    if operation.body is bytes:
        faults.remove("415")
    if operation.name not in STORING:
        faults = [status for status in faults if status not in ("409", "503")]
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": _answer(operation), **{status: _fault(FAULTS[status]) for status in faults}},
    }
    if operation.scope is not None:
        said["description"] = f"The key has to allow `{operation.scope}`."
    if operation.can_be_missing:
        said["responses"]["404"] = _fault("There is no such thing")
    if not has_key:
        said["security"] = []
    in_path = [_parameter("path", parameter) for parameter in operation.parameters]
    in_query = [_parameter("query", parameter, endpoints) for parameter in operation.query]
    parameters = [*in_path, *in_query]
    if parameters:
        said["parameters"] = parameters
    if operation.body is bytes:
        said["requestBody"] = {
            "description": "`text/*` is sent as text, JSON as JSON, and anything else as binary.",
            "required": True,
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/json": {"schema": {}},
                "application/octet-stream": {
                    "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
                },
            },
        }
    elif operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body.__name__)}}
        said["requestBody"] = {"required": True, "content": content}
    return said


def _answer(operation: Operation) -> dict[str, Any]:
    parts = [_ref(part.__name__) for part in _parts(operation.answer)]
    schema: dict[str, Any] = {"type": "object"} if not parts else parts[0] if len(parts) == 1 else {"oneOf": parts}
    return {"description": operation.summary, "content": {"application/json": {"schema": schema}}}


def _fault(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref("Failure")}}}


def _parameter(place: str, parameter: Parameter, endpoints: Sequence[str] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.kind == "array":
        schema["items"] = {"type": "string"}
    if parameter.limit is not None:
        default, most = parameter.limit
        schema |= {"minimum": 1, "maximum": most, "default": default}
    if parameter.name == "endpoint" and endpoints:
        schema["enum"] = list(endpoints)
    if place == "path":
        schema |= {"minLength": 1, "maxLength": shapes.NAME_BYTES, "pattern": shapes.NO_CONTROLS}
    return {
        "name": parameter.name,
        "in": place,
        "required": place == "path",
        "description": parameter.description,
        "schema": schema,
    }
