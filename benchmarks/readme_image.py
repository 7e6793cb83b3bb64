"""Draw the image of the README: hits of `impart search` in the library of the demo, each as its first frame.

impart demo && python benchmarks/readme_image.py impart-demo docs/search.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from impart.data.demo import DEMO_IMAGE
from impart.video.index.index import Hit, VideoIndex

QUERIES = ("a cup of coffee on a table", "a rocket on its launch pad", "an astronaut in an orange suit")
TILE = (256, 144)
LABEL_PX = 24
LEFT_PX = 300
HITS = 2
INK, PAPER, FAINT = (25, 28, 33), (255, 255, 255), (110, 118, 129)


def frame_at(hit: Hit) -> Image.Image:
    """Decode the frame at the start of the best moment of a hit."""
    with av.open(str(hit.path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            if frame.time is not None and frame.time + 1e-6 >= hit.best_s:
                break
    image: Image.Image = frame.to_image()
    scale = max(TILE[0] / image.width, TILE[1] / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    left, top = (size[0] - TILE[0]) // 2, (size[1] - TILE[1]) // 2
    return image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + TILE[0], top + TILE[1]))


def main() -> None:
    demo, out = Path(sys.argv[1]), Path(sys.argv[2])
    index = VideoIndex.open(demo / "library.impart", create=False)
    image = demo / DEMO_IMAGE
    rows = [(text, index.search(text=text, group="scene", top=HITS)) for text in QUERIES]
    rows.append(("", index.search(image=image, group="scene", top=HITS)))
    row_px = TILE[1] + LABEL_PX + 14
    sheet = Image.new("RGB", (LEFT_PX + HITS * (TILE[0] + 12), len(rows) * row_px + 6), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(19), ImageFont.load_default(15)
    for number, (text, hits) in enumerate(rows):
        top = number * row_px + 8
        draw.text((14, top), "impart search", fill=FAINT, font=small)
        if text:
            draw.text((14, top + 26), f'"{text}"', fill=INK, font=font)
        else:
            draw.text((14, top + 24), "--image", fill=INK, font=font)
            with Image.open(image) as query:
                sheet.paste(query.resize((104, 104), Image.Resampling.BICUBIC), (104, top + 26))
        for place, hit in enumerate(hits):
            left = LEFT_PX + place * (TILE[0] + 12)
            sheet.paste(frame_at(hit), (left, top))
            label = f"{hit.score:.2f}  {Path(hit.path).name[:18]}  {hit.timecode[3:8]}"
            draw.text((left, top + TILE[1] + 3), label, fill=INK, font=small)
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


if __name__ == "__main__":
    main()
