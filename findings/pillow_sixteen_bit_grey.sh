#!/usr/bin/env bash
# Pillow converts 16-bit grey to RGB by clipping at 255, not by scaling: nearly every image becomes white.
#
# Versions: Pillow 13.0.0, NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    a 16-bit grey PNG, a ramp from 0 to 65,535 (scanners, medical and scientific images, depth maps).
# Expected: `Image.open(file).convert("RGB")` scales by the format's range: the middle of the ramp is about 128.
# Seen:     every level from 255 on is 255: 255 of 256 columns of the ramp are white. No error and no warning.
#           `convert("L")` does the same. 16-bit RGB is scaled when the file is decoded.
# Remedy:   scale the pixels by 255 / 65,535 before the conversion.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

file = Path(sys.argv[1]) / "ramp.png"
ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (8, 1))
Image.fromarray(ramp).save(file)
opened = Image.open(file)
converted = np.asarray(opened.convert("RGB"))[0, :, 0]
white = int((converted == 255).sum())
print(f"mode {opened.mode}: {white} of 256 columns are white, the middle is {converted[128]}")
sys.exit(0 if white >= 255 else "the conversion has changed")
PY
