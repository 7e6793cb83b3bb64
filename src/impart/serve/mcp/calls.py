"""Calls of tools: work in a thread that a client may cancel, progress while it runs, and errors with their remedy.

The SDK runs a plain function to its end even after the client has cancelled the call. So every tool is a coroutine that
waits for a thread: a cancelled call ends at once, and the result of its thread is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from impart.errors import ImpartError

__all__ = ["in_thread"]

_Result = TypeVar("_Result")
_PROGRESS_S = 3.0  # clients may extend their time limit with each report
_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="impart-mcp")


async def in_thread(context: Context[Any, Any], work: Callable[[], _Result]) -> _Result:
    """Run `work` in a thread and wait for it; work that has begun is done to its end, also after a cancel.

    Args:
        context: of the call; it reports progress to clients that ask for it.

    Raises:
        ToolError: the work raised an error of IMPART, or of the file system.
    """
    reporting = asyncio.create_task(_report(context))
    try:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
    except (ImpartError, OSError) as error:
        raise ToolError(str(error)) from error
    finally:
        reporting.cancel()


async def _report(context: Context[Any, Any]) -> None:
    """Report progress every few seconds."""
    began = time.monotonic()
    with contextlib.suppress(Exception):  # the client may be gone: that is no matter of this call
        while True:
            await asyncio.sleep(_PROGRESS_S)
            await context.report_progress(round(time.monotonic() - began, 1), message="still working")
