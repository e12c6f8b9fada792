"""Errors in OpenAI's form; not for the errors of commands (`core/errors.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: Of HTTP.
        param: The parameter concerned.
        retry_after: Seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def document(self) -> dict[str, Any]:
        """`{"error": …}`."""
        error = {
            "message": _printable(self.message), "type": _TYPES.get(self.status, "server_error"),
            "param": None if self.param is None else _printable(self.param), "code": self.code,
        }  # fmt: skip
        return {"error": error}

    def headers(self) -> Mapping[str, str]:
        """Beside the body."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def response(self) -> JSONResponse:
        """As a reply."""
        return JSONResponse(self.document(), self.status, headers=dict(self.headers()))


_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error",
    429: "rate_limit_error", 503: "server_error",
}  # fmt: skip


def _printable(text: str) -> str:
    """The text with halves of surrogate pairs, which a client may have sent, replaced."""
    return text.encode("utf-8", "replace").decode()


def from_validation(errors: list[Any]) -> Refusal:
    """The first of pydantic's complaints, the parameter by its name."""
    first = errors[0]
    kind = str(first.get("type"))
    where = [str(part) for part in first["loc"] if part != "body"]
    # A union is tried one form after the other; where one form was meant, its complaint counts.
    extra = next((each for each in errors if each["type"] == "extra_forbidden"), None)
    if kind == "json_invalid":
        return Refusal(400, f"The body is not valid JSON: {first['ctx']['error']}")
    if extra is not None:
        where = [str(part) for part in extra["loc"] if part != "body"]
        name = where[-1] if where else "?"
        return Refusal(
            400, f"Unknown or unsupported parameter: '{name}'", param=".".join(where),
            code="unknown_parameter",
        )  # fmt: skip
    name = ".".join(where) or "body"
    return Refusal(400, f"{name}: {first['msg']}", param=name, code="invalid_value")
