"""A program like `impart` that knows the tiny encoder: `python tests/helpers/tiny_impart.py index ... -e tiny`.

Its encoder prints a line for each batch of texts, since other models may print as well. TINY_SLEEP_S is the time (s)
that each batch takes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import main
from impart.encoders.base import register


class PrintingEncoder(TinyEncoder):
    """The tiny encoder, with output of its own."""

    def encode_texts(self, texts):
        sys.stdout.write("a line of the model\n")
        sys.stdout.flush()
        time.sleep(float(os.environ.get("TINY_SLEEP_S", "0")))
        return super().encode_texts(texts)

    def encode_images(self, images):
        time.sleep(float(os.environ.get("TINY_SLEEP_S", "0")))
        return super().encode_images(images)


if __name__ == "__main__":
    register("tiny", lambda rest, **options: PrintingEncoder(int(rest or 0)))
    main()
