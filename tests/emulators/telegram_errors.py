"""The Bot API's refusals, worded as api.telegram.org words them."""

from typing import Any


class TelegramError(Exception):
    """Answered as `{"ok": false, "error_code": status, "description": …}`."""

    def __init__(self, status: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters

    def as_answer(self) -> dict[str, Any]:
        answer = {"ok": False, "error_code": self.status, "description": self.description}
        return answer | ({"parameters": self.parameters} if self.parameters else {})


class BadRequest(TelegramError):
    def __init__(self, description: str, **parameters: Any) -> None:
        super().__init__(400, f"Bad Request: {description}", **parameters)


class Forbidden(TelegramError):
    def __init__(self, description: str) -> None:
        super().__init__(403, f"Forbidden: {description}")


class Conflict(TelegramError):
    def __init__(self) -> None:
        super().__init__(
            409,
            "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
        )


def flood(retry_after: int) -> TelegramError:
    return TelegramError(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)
