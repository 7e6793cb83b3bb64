"""Time an index on object storage beside the same one in a folder: write, first search, search; count the requests.

    python benchmarks/object_storage.py [--segments 20000] [--dim 640] [--delay-ms 0 30]

The server is moto on this machine, in a process of its own. `--delay-ms` lets it wait before each answer, as a network
does. The vectors are random, without videos and model. The output is a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from impart.video.index.index import VideoIndex
from refset_use import RandomEncoder, fill

BUCKET, SEARCHES = "films", 20
SERVER = """
import sys, time
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app, delay_s, counted = DomainDispatcherApplication(create_backend_app), float(sys.argv[2]) / 1000, sys.argv[3]

def answer(environ, start_response):
    if not environ["PATH_INFO"].startswith("/moto-api"):
        time.sleep(delay_s)
        with open(counted, "a") as file:
            file.write(environ["REQUEST_METHOD"] + "\\n")
    return app(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), answer, threaded=True)
"""


@contextmanager
def server(folder: Path, *, delay_ms: float) -> Iterator[Path]:
    """Run a server with one bucket; yield the file that has one line per request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    counted = folder / "requests.txt"
    counted.touch()
    command = [sys.executable, "-c", SERVER, str(port), str(delay_ms), str(counted)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        yield counted
    finally:
        process.kill()
        process.wait()


def first_search(place: str, dim: int) -> float:
    """Time opening an index and its first search in a fresh process, without the start of Python."""
    command = [sys.executable, __file__, "--dim", str(dim), "--only-search", place]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=640)
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[0.0, 30.0])
    parser.add_argument("--only-search", help=argparse.SUPPRESS)
    options = parser.parse_args()
    encoder = RandomEncoder(options.dim)
    if options.only_search:
        began = time.perf_counter()
        VideoIndex.open(options.only_search, encoder).search(text="a dog")
        print(time.perf_counter() - began)
        return
    print(f"{options.segments} segments, D = {options.dim}")
    print("| | folder | requests | " + " | ".join(f"s3, {ms:g} ms | requests" for ms in options.delay_ms) + " |")
    columns = [measured(options, None), *(measured(options, ms) for ms in options.delay_ms)]
    for name in columns[0]:
        cells = [f"{time_s * 1000:.0f} ms | {count}" for time_s, count in (column[name] for column in columns)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def measured(options: argparse.Namespace, delay_ms: float | None) -> dict[str, tuple[float, int]]:
    """Measure one place: seconds, and requests of the server, of each step."""
    encoder, result = RandomEncoder(options.dim), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["IMPART_CACHE"] = str(folder / "here")
        with server(folder, delay_ms=delay_ms or 0.0) as counted:
            place = str(folder / "library.impart") if delay_ms is None else f"s3://{BUCKET}/library.impart"

            def requests() -> int:
                return counted.read_text().count("\n")

            index = VideoIndex.open(place, encoder)
            list(index.add([]))
            before = requests()
            costs = fill(index, options.segments)
            result["commit of a video, median"] = statistics.median(costs), (requests() - before) // len(costs)
            list(index.add([]))  # writes the cache of this machine
            before = requests()
            times = [first_search(place, options.dim) for _ in range(5)]
            result["first search of a process"] = statistics.median(times), (requests() - before) // 5
            if delay_ms is not None:
                os.environ["IMPART_CACHE"] = str(folder / "there")
            else:
                subprocess.run(["rm", "-r", str(folder / "library.impart" / "cache")], check=True)
            before = requests()
            result["the same without a cache"] = first_search(place, options.dim), requests() - before
            index = VideoIndex.open(place, encoder)
            index.search(text="a dog")
            times, counts = [], []
            for number in range(SEARCHES):
                time.sleep(0.3)  # the server is asked again after a quarter of a second
                before, began = requests(), time.perf_counter()
                index.search(text=f"query {number}")
                times.append(time.perf_counter() - began)
                counts.append(requests() - before)
            result["search, warm, median"] = statistics.median(times), int(statistics.median(counts))
    return result


if __name__ == "__main__":
    main()
