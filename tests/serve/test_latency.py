"""Answers on a kept connection come at once."""

from __future__ import annotations

import http.client
import statistics
import threading
import time

import uvicorn

from helpers.media_server import client_of
from helpers.photos import write_photo
from impart.serve.run import listen
from impart.serve.settings import ServeSettings


def test_a_kept_connection_waits_for_no_acknowledgement(tmp_path):
    client, _ = client_of(tmp_path, write_photo(tmp_path / "photo.jpg"))
    opened = listen(ServeSettings(index=tmp_path / "index", port=0))
    server = uvicorn.Server(uvicorn.Config(client.app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        connection = http.client.HTTPConnection(*opened.getsockname())
        times_s = []
        for _ in range(15):
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            times_s.append(time.perf_counter() - began)
        connection.close()
    finally:
        server.should_exit = True
        thread.join()
    assert statistics.median(times_s) < 0.03  # 0.04 with Nagle's algorithm
