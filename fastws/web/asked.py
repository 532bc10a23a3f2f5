"""What a request of the API asks: its query, its body, its message, each checked."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
from msgspec import UNSET

from ..nesting import nesting_fault
from . import shapes
from .app import BadRequest, WebRequest
from .operations import OPERATIONS, Parameter

__all__ = ["addressed", "as_said", "fault", "flag", "kind", "limit", "message", "need_json", "no_query", "value"]

ENCODED_JSON = "application/json"
FAULT = re.compile(r"(.*?) - at `(\$.*)`", re.DOTALL)
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
#: Kinds of body that are text; the last is what ``curl -d`` says of whatever it sends.
TEXTS = re.compile(r"text/.*|application/(?:.*\+)?xml|application/javascript|application/x-www-form-urlencoded")
JSONS = re.compile(r"application/(?:.*\+)?json")


def kind(request: WebRequest) -> str:
    """Returns the body's media type, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def need_json(request: WebRequest) -> None:
    """Raises BadRequest(415) for a body that is not said to be JSON."""
    if request.headers.get("content-type") != ENCODED_JSON and not JSONS.fullmatch(kind(request)):
        raise BadRequest("the body is not said to be JSON: send Content-Type: application/json", status=415)


def fault(said: str) -> tuple[str, str]:
    """Returns what a ValidationError says, and where."""
    match = FAULT.fullmatch(said)
    message, field = (said, "$") if match is None else (match[1], match[2])
    unknown = UNKNOWN.fullmatch(message)
    if unknown is not None:
        field = f"{field}.{unknown[1]}"
    return message.replace("`", ""), field


def no_query(request: WebRequest, allowed: Iterable[Parameter] = ()) -> None:
    """Raises BadRequest for a field that is not known, or is there more often than once but for a list."""
    if not request.scope["query_string"]:
        return
    known = {parameter.name: parameter for parameter in allowed}
    for name in request.query:
        if name not in known:
            raise BadRequest(f"the query's field {name[:64]!r} is not known here", name[:64])
        if known[name].kind != "array" and len(request.query_all(name)) > 1:
            raise BadRequest(f"the query's field {name!r} is there more than once", name)


def limit(request: WebRequest, name: str) -> int:
    """Returns the query's ``limit`` for an operation; raises BadRequest."""
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    default, most = next(p.limit for p in operation.query if p.limit is not None)
    text = request.query.get("limit", str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise BadRequest(f"limit is out of range: 1 to {most:,} works", "limit")
    return int(text)


def flag(request: WebRequest, name: str) -> bool | None:
    """Returns a field of the query that is true or false, None where it is not there; raises BadRequest."""
    text = request.query.get(name)
    if text not in (None, "true", "false"):
        raise BadRequest(f"{name}={text[:64]!r} is neither true nor false", name)
    return None if text is None else text == "true"


def value(field: Any) -> Any:
    """Returns a field of a shape, None where it is not there."""
    return None if field is UNSET else field


def addressed(command: shapes.Addressed | shapes.Send) -> tuple[Any, Any]:
    """Returns users and ids; raises BadRequest where neither is there."""
    users, to = value(command.users), value(command.to)
    if users is None and to is None:
        raise BadRequest("users or to is needed", "$")
    return users, to


def message(command: shapes.Said) -> Any:
    """Returns the message of a command, for the hub; raises BadRequest."""
    if command.message is not UNSET:
        if command.text is UNSET and command.base64 is UNSET:
            return json_value(bytes(command.message), "$.message")
    elif command.text is not UNSET:
        if command.base64 is UNSET:
            return command.text
    elif command.base64 is not UNSET:
        return command.base64
    else:
        raise BadRequest("message, text or base64 is needed", "$.message")
    raise BadRequest("message, text and base64 exclude each other: choose one", "$.message")


def json_value(raw: bytes, field: str | None) -> Any:
    """Returns JSON as what the hub sends: a string as such, anything else as it was written. Raises BadRequest."""
    too_deep = nesting_fault(raw)
    if too_deep:
        raise BadRequest(f"the message is too deep: {too_deep}", field)
    try:
        text = raw.decode()
        return msgspec.json.decode(raw) if text.startswith('"') else orjson.Fragment(text)
    except UnicodeDecodeError:
        raise BadRequest("the message is not UTF-8", field) from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the message is not JSON: {error}", field) from None


def as_said(kind: str, body: bytes) -> Any:
    """Returns a body as what the hub sends, by what it is said to be; raises BadRequest."""
    try:
        if JSONS.fullmatch(kind):
            msgspec.json.decode(body, type=msgspec.Raw)
            too_deep = nesting_fault(body)
            if too_deep:
                raise BadRequest(f"the body is too deep: {too_deep}")
            return orjson.Fragment(body.decode())
        return body.decode() if TEXTS.fullmatch(kind) else body
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
