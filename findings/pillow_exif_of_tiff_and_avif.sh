#!/usr/bin/env bash
# Pillow writes an `Exif` object to TIFF and AVIF without its Exif IFD: the time at which a photo was taken is lost.
#
# Versions: Pillow 13.0.0, Python 3.11, Linux x86-64.
# Input:    an `Image.Exif` with an orientation and, in the Exif IFD (0x8769), DateTimeOriginal (0x9003).
# Expected: `image.save(file, exif=exif)` writes both, as the same call with `exif=exif.tobytes()` does.
# Seen:     JPEG, PNG and WebP keep both. TIFF and AVIF keep the orientation and lose DateTimeOriginal. No error and no
#           warning. With the bytes all five keep both.
# Remedy:   give `exif.tobytes()`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0
"$work/venv/bin/python" - <<'PY'
import io
import sys

from PIL import Image

TIME = "2024:05:01 12:00:00"
lost = {}
for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
    for name in ("object", "bytes"):
        exif = Image.Exif()
        exif[0x0112] = 6
        exif.get_ifd(0x8769)[0x9003] = TIME
        content = io.BytesIO()
        Image.new("RGB", (64, 48)).save(content, form, exif=exif if name == "object" else exif.tobytes())
        read = Image.open(content).getexif()
        assert read[0x0112] == 6, form
        lost[form, name] = read.get_ifd(0x8769).get(0x9003) != TIME
        print(f"{form:5} {name:7} DateTimeOriginal {'lost' if lost[form, name] else 'kept'}")
expected = {("TIFF", "object"), ("AVIF", "object")}
sys.exit(0 if {key for key, value in lost.items() if value} == expected else "the behaviour has changed")
PY
