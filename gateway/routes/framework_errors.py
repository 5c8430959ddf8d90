"""FastAPI's and Starlette's own errors, in this gateway's words."""

from typing import NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, UnprocessableInput


def translate_framework_errors(app: FastAPI) -> None:
    """Re-raises them as GatewayErrors, which middleware/errors.py answers."""

    async def invalid(_: Request, error: RequestValidationError) -> NoReturn:
        first = error.errors()[0] if error.errors() else {}
        if not isinstance(first, dict):
            raise UnprocessableInput(str(first)) from error
        field = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
        message = first.get("msg", "Invalid input")
        raise UnprocessableInput(f"Invalid value for '{field or 'body'}': {message}.", param=field or None) from error

    async def refused(request: Request, error: HTTPException) -> NoReturn:
        raise _gateway_error(request, error) from error

    # Starlette types every handler as one for Exception.
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, refused)  # type: ignore[arg-type]


def _gateway_error(request: Request, error: HTTPException) -> GatewayError:
    if error.status_code == NotFound.status and error.detail == "Not Found":
        return NotFound(f"There is no {request.url.path} here; /docs lists the routes.")
    if error.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.")
    if error.status_code == UnprocessableInput.status:
        return UnprocessableInput(str(error.detail))
    if error.status_code < 500:
        return InvalidRequest(f"{error.detail}.".replace("..", "."))
    return GatewayError("Internal error.")
