"""Processes of jobs: quick to start, and they end with their input."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

HEAVY = ("fastapi", "pydantic", "uvicorn", "lancedb", "pyarrow", "onnxruntime", "torch", "transformers")
CONTROL = """
import time
from impart.serve.jobs.children.control import serve_request

def work(request, control):
    print("a library prints this")
    for number in range(1000):
        control.send({"type": "span", "done": number})
        order = control.checkpoint()
        if order != "go":
            control.send({"type": "stopped", "order": order})
            return
        time.sleep(0.01)

serve_request(work)
"""


@pytest.mark.parametrize("kind", ["index", "export"])
def test_a_process_imports_at_its_start_only_what_it_needs(kind: str) -> None:
    script = f"import sys, impart.serve.jobs.children.{kind}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


def start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    order(process, nice=0)
    return process


def order(process: subprocess.Popen[bytes], *orders: str, **request: object) -> None:
    """Send a request, or several orders in one write."""
    assert process.stdin is not None
    messages = [request] if request else [{"order": one} for one in orders]
    process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    process.stdin.flush()


def read(process: subprocess.Popen[bytes], kind: str) -> dict[str, object]:
    assert process.stdout is not None
    return next(message for message in map(json.loads, process.stdout) if message["type"] == kind)


@pytest.mark.timeout(60)
def test_orders_are_obeyed_also_when_they_come_at_once() -> None:
    process = start()
    read(process, "span")
    order(process, "pause")
    read(process, "paused")
    order(process, "resume", "pause")
    read(process, "paused")
    order(process, "resume")
    read(process, "span")
    order(process, "pause", "stop")
    assert read(process, "stopped")["order"] == "stop", "the end of the server does not wait for a pause"
    assert process.wait(20) == 0


@pytest.mark.timeout(60)
def test_the_end_of_its_input_ends_a_process_also_while_it_is_paused() -> None:
    process = start()
    read(process, "span")
    order(process, "pause")
    read(process, "paused")
    began = time.monotonic()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 1
    assert time.monotonic() - began < 10
