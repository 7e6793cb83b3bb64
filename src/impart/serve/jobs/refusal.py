"""Refusals: why a request about jobs is not carried out."""

from __future__ import annotations

from impart.errors import ImpartError

__all__ = ["JobRefusedError"]


class JobRefusedError(ImpartError):
    """Raised when a request about jobs is refused.

    Args:
        detail: what is wrong, and what helps.
        status: of HTTP.
        code: stable name, such as `queue_full`.
        retry_after_s: when to try again; None = that does not help.
    """

    def __init__(self, detail: str, *, status: int, code: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s
