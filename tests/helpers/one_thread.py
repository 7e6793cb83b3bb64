"""One torch thread per test: small tensors gain nothing from more, and busy machines get much slower."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
