"""What the server answers when it does not do what was asked: `Status`, as every client of Kubernetes reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ApiStatus(Exception):
    """A request that is refused. Attributes: code (HTTP), reason (for programs), message, retry_after (seconds)."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = details or {}
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The answer as JSON."""
        details = dict(self.details)
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def bad_request(message: str) -> ApiStatus:
    """What cannot be understood."""
    return ApiStatus(400, "BadRequest", message)


def not_found(resource: str, name: str) -> ApiStatus:
    """An object that is not there."""
    return ApiStatus(404, "NotFound", f'{resource} "{name}" not found', details={"name": name, "kind": resource})


def already_exists(resource: str, name: str) -> ApiStatus:
    """An object that is there."""
    details = {"name": name, "kind": resource}
    return ApiStatus(409, "AlreadyExists", f'{resource} "{name}" already exists', details=details)


def conflict(resource: str, name: str, why: str) -> ApiStatus:
    """An object that was changed meanwhile, or is another one by now."""
    details = {"name": name, "kind": resource}
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiStatus(409, "Conflict", message, details=details)


def invalid(kind: str, name: str, problems: Sequence[tuple[str, str]]) -> ApiStatus:
    """Values that cannot be; `problems`: field and what is wrong with it."""
    causes = [{"reason": "FieldValueInvalid", "field": field, "message": said} for field, said in problems]
    told = [f"{field}: {said}" for field, said in problems]
    said = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    details = {"name": name, "kind": kind, "causes": causes}
    return ApiStatus(422, "Invalid", f'{kind} "{name}" is invalid: {said}', details=details)


def forbidden(resource: str, name: str, why: str) -> ApiStatus:
    """What the user, or a quota, does not allow."""
    details = {"name": name, "kind": resource}
    return ApiStatus(403, "Forbidden", f'{resource} "{name}" is forbidden: {why}', details=details)


def gone(version: int, oldest: int) -> ApiStatus:
    """A resource version from before what is remembered."""
    return ApiStatus(410, "Expired", f"too old resource version: {version} ({oldest})")
