"""A folder of coloured images with captions, for tests of training, and the tiny encoder under an id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.encoders.base import register


def register_tiny() -> None:
    """Make `load_encoder("tiny")` work."""
    register("tiny", lambda rest, **options: TinyEncoder())


def shades(folder: Path, *, each: int = 8, seed: int = 0) -> Path:
    """Write `each` shades of ten colours and a captions.csv (file, text, split); every eighth row has split `val`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,text,split"]
    for number in range(each):
        for name, rgb in COLOURS.items():
            shade = np.clip(np.array(rgb) + rng.normal(0, 25, 3), 0, 255).astype(np.uint8)
            pixels = np.broadcast_to(shade, (24, 32, 3)) // 2 * 2 + rng.integers(0, 2, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}_{number}.png")
            split = "val" if number % 8 == 7 else "train"
            lines += [f"{name}_{number}.png,a {name} thing,{split}", f"{name}_{number}.png,{name} {number},{split}"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder
