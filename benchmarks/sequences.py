"""Measure sequences in films (one sentence, then another), and the mark where good hits end.

    python benchmarks/sequences.py --data ../shared/data

Sequences: clips of `videos/panda` joined in random order into films. A query is the captions of two neighbouring clips,
A then B. It is right where the first hit is their film and the best frame of A and of B each lie in their clips.

Mark: captions among the images of Flickr8k `val` and among the clips of panda, where one item is right for each. A
right item counts as found where it is among the first ten hits. Descriptions of textbook photos (`images/openstax`) and
texts without sense have no right item. The bounds of the mark were chosen on Flickr8k `val`; panda is measured only.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from films import Told, clip_films
from impart.video.index.index import VideoIndex
from impart.video.search.hits import Hit
from impart.video.search.query import Query

TOP = 10
NONSENSE = (
    *("asdf qwerty", "blorft zzz", "xkcd 12345", "lorem ipsum dolor sit amet", "qqqq", "the of and to", "hjkl"),
    *("colourless green ideas sleep furiously", "quarterly tax return for a limited company", "meaning of life"),
    *("null pointer exception", "e equals m c squared", "monads in the category of endofunctors"),
    *("interest rate hedging", "terms and conditions apply", "a proof by induction", "deferred revenue recognition"),
    *("zxcvbn", "floccinaucinihilipilification", "the square root of minus one"),
)


def indexed(folder: Path, paths: Sequence[Path]) -> VideoIndex:
    """Index files."""
    index = VideoIndex.open(folder)
    for _ in index.add(paths):
        pass
    return index


def inside(at_s: float, told: Told) -> bool:
    return told.start_s - 0.13 <= at_s < told.end_s + 0.13  # half a step of four frames per second


def sequence_table(index: VideoIndex, told: Sequence[Told]) -> list[str]:
    """Search the captions of all neighbouring clips, joined and in other ways."""
    pairs = [(a, b) for a, b in pairwise(told) if a.film == b.film]

    def share(found: Sequence[Sequence[Hit]], right: Callable[[Hit, Told, Told], bool]) -> str:
        count = sum(bool(hits) and right(hits[0], a, b) for hits, (a, b) in zip(found, pairs, strict=True))
        return f"{count} ({100 * count / len(pairs):.0f}%)"

    def film(hit: Hit, a: Told, _b: Told) -> bool:
        return hit.path == a.film

    def in_a(hit: Hit, a: Told, _b: Told) -> bool:
        return hit.path == a.film and inside(hit.best_s, a)

    def joined(hit: Hit, a: Told, b: Told) -> bool:
        first, second = hit.steps
        return hit.path == a.film and inside(first.best_s, a) and inside(second.best_s, b)

    lines = [
        f"{len(pairs)} pairs of neighbouring clips in {len({one.film for one in told})} films, among "
        f"{len(index.videos())} videos. The first hit is right:",
        "",
        "| query | its film | its moment of A | its join of A and B |",
        "| --- | ---: | ---: | ---: |",
    ]
    alone = index.search_many([Query(text=a.sentence) for a, _ in pairs], top=1)
    lines.append(f"| A alone | {share(alone, film)} | {share(alone, in_a)} | - |")
    sentences = [Query(text=f"{a.sentence.rstrip('. ')}, then {b.sentence}") for a, b in pairs]
    one = index.search_many(sentences, top=1)
    lines.append(f"| A and B as one sentence | {share(one, film)} | {share(one, in_a)} | - |")
    for within_s in (5.0, 20.0, 60.0):
        queries = [Query(text=a.sentence, then=Query(text=b.sentence), within_s=within_s) for a, b in pairs]
        then = index.search_many(queries, top=1)
        figures = f"{share(then, film)} | {share(then, in_a)} | {share(then, joined)}"
        lines.append(f"| A then B, within {within_s:g} s | {figures} |")
    return lines


def mark_row(name: str, found: Sequence[Sequence[Hit]], right: Sequence[str | None]) -> str:
    """Count the marked hits that are right."""
    marked = [[hit.path.name for hit in hits if hit.strong] for hits in found]
    none = f"{100 * np.mean([not names for names in marked]):.0f}%"
    count = f"{np.mean([len(names) for names in marked]):.1f}"
    if right[0] is None:
        return f"| {name} | {len(found)} | {count} | - | - | {none} |"
    hit = sum(own in names for own, names in zip(right, marked, strict=True))
    known = sum(own in {one.path.name for one in hits} for own, hits in zip(right, found, strict=True))
    total = sum(len(names) for names in marked)
    shares = " | ".join(f"{hit}/{all_} ({100 * hit / max(all_, 1):.0f}%)" for all_ in (total, known))
    return f"| {name} | {len(found)} | {count} | {shares} | {none} |"


def mark_table(data: Path, flickr: VideoIndex, panda: VideoIndex) -> list[str]:
    """Count how many right and wrong hits are marked as strong."""

    def rows(path: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(path.open(encoding="utf-8")))

    captions = [row for row in rows(data / "images/flickr8k/captions.csv") if row["split"] == "val"]
    clips = rows(data / "videos/panda/captions.csv")
    textbook = [row["alt"] for row in rows(data / "images/openstax/captions.csv") if 4 <= len(row["alt"].split()) <= 16]
    chosen = np.random.default_rng(0).choice(len(textbook), 200, replace=False)
    absent = [textbook[number] for number in chosen]
    lines = [
        "| texts | queries | marked per query | precision of the mark | recall of the mark | nothing matches |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]

    def add(name: str, index: VideoIndex, texts: Sequence[str], right: Sequence[str | None]) -> None:
        found = index.search_many([Query(text=text) for text in texts], top=TOP, fold_copies=False)
        lines.append(mark_row(name, found, right))
        print(lines[-1], flush=True)

    for name, index, asked in (
        ("500 Flickr8k `val` images", flickr, captions[::5]),
        ("66 clips of panda", panda, clips),
    ):
        add(f"captions of the {name}", index, [row["caption"] for row in asked], [row["file"] for row in asked])
        add(f"textbook photos, among the {name}", index, absent, [None] * len(absent))
        add(f"nonsense, among the {name}", index, NONSENSE, [None] * len(NONSENSE))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="folder to keep films and indexes in")
    parser.add_argument("--films", type=int, default=3)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # nonsense has words that the model does not know
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        clips = options.data / "videos" / "panda"
        made = clip_films(clips, work / "films", films=options.films, dissolve_s=0.0, seed=0)
        lines = sequence_table(
            indexed(work / "films.impart", [*made.paths, *(clip for clip, _ in made.clips)]), made.told
        )
        print("\n".join(lines), flush=True)
        flickr = options.data / "images" / "flickr8k"
        rows = csv.DictReader((flickr / "captions.csv").open(encoding="utf-8"))
        photos = sorted({flickr / "images" / row["file"] for row in rows if row["split"] == "val"})
        lines += [
            "",
            *mark_table(options.data, indexed(work / "flickr.impart", photos), indexed(work / "panda.impart", [clips])),
        ]
    if options.out:
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
