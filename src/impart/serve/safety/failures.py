"""Failures: an unexpected exception is logged, and its request is answered with a problem that tells nothing else."""

from __future__ import annotations

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impart.serve.problems import Problem, problem_response

__all__ = ["FailureGuard"]

_log = logging.getLogger(__name__)


class FailureGuard:
    """Answers 500 with code `internal_error` where the application raises."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on.

        Raises:
            Exception: the one of the application, where its answer has begun: the connection must be closed.
        """
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            if scope["type"] != "http" or began:
                raise
            _log.exception("%s %s failed", scope["method"], scope["path"])
            detail = f"the server failed ({type(error).__name__}): its log has the reason"
            await problem_response(Problem(500, "internal_error", detail))(scope, receive, send)
