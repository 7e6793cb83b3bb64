"""Measure sentences with taught names: which video comes first.

    python benchmarks/names_sentences.py --data ../shared/data --out FILE

An index of the clips of `videos/panda` and of 82 photos of Flickr8k `val`. All names are made up and taught with frames
at a quarter, a half and three quarters of a clip:

- 66 names of one clip each, in two sentences that say nothing else;
- 10 names of four clips of one kind each (a car, a pet, a cook ...). The 40 sentences of `name_sentences.csv` are the
  captions of these clips with the subject replaced by the name, and without what names its kind;
- 60 names of two clips: all pairs of the four, with the sentences of both;
- 148 sentences without a name, the captions of the clips and one of each photo, before and after the names are taught.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from impart.video.index.index import VideoIndex
from impart.video.names.stills import still_at
from impart.video.search.query import Query

PHOTOS = 82
SHARES = (0.25, 0.5, 0.75)
NEUTRAL = ("a photo of {}", "yesterday we saw {}")
SENTENCES = Path(__file__).resolve().parent / "name_sentences.csv"


def made_up() -> Iterator[str]:
    """Yield names that are no words."""
    for parts in itertools.product("BDGKLMPRTVZ", "aeiou", ("mb", "rv", "lk", "nd", "xt"), "aeiou", "lnrsx"):
        yield "".join(parts)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Bench:
    """The index with what is taught.

    Args:
        data: development data.
        scratch: an empty folder.
    """

    def __init__(self, data: Path, scratch: Path) -> None:
        self.clips = data / "videos" / "panda"
        captions = rows_of(self.clips / "captions.csv")
        self.length_s = {row["file"]: float(row["seconds"]) for row in captions}
        photos = {
            row["file"]: row["caption"]
            for row in rows_of(data / "images" / "flickr8k" / "captions.csv")
            if row["split"] == "val"
        }
        chosen = dict(list(photos.items())[:PHOTOS])
        self.unrelated = [(row["file"], row["caption"]) for row in captions] + list(chosen.items())
        self.caption = {row["file"]: row["caption"] for row in captions}
        self.index = VideoIndex.open(scratch / "index.impart")
        files = [self.clips / file for file in self.length_s] + [
            data / "images/flickr8k/images" / file for file in chosen
        ]
        for _ in self.index.add(files):
            pass
        self._names = scratch / "names"
        self._stills: dict[str, list[Path]] = {}

    def teach(self, name: str, files: Sequence[str]) -> None:
        """Put the frames of clips into the folder of a name."""
        folder = self._names / name
        folder.mkdir(parents=True)
        for file in files:
            own = [folder / f"{Path(file).stem}-{number}.png" for number in range(len(SHARES))]
            for path, known in zip(own, self._stills.get(file, ()), strict=False):
                shutil.copyfile(known, path)
            if file not in self._stills:
                for path, part in zip(own, SHARES, strict=True):
                    at_s = part * self.length_s[file]
                    Image.fromarray(still_at(self.clips / file, at_s, short_side_px=256)).save(path)
                self._stills[file] = own

    def taught(self) -> None:
        self.index.names.add_folder(self._names)

    def ranks(self, asked: Sequence[tuple[str, str]], *, names: bool = True) -> list[int]:
        """Compute the rank, from 1, of the wanted file of each (file, sentence)."""
        queries = [Query(text=sentence) for _, sentence in asked]
        options = {"names": names, "top": 200, "spans": False, "fold_copies": False}
        answers = self.index.search_many(queries, **options)  # type: ignore[arg-type]
        return [1 + [hit.path.name for hit in hits].index(file) for (file, _), hits in zip(asked, answers, strict=True)]

    def first_of(self, asked: Sequence[tuple[str, str]], own: Callable[[str], Sequence[str]]) -> float:
        """Compute the share of captions whose clip is the first among some; the texts have no name."""
        answers = self.index.search_many([Query(text=text) for _, text in asked], top=200, spans=False)
        first = [
            next(hit.path.name for hit in hits if hit.path.name in own(file)) == file
            for (file, _), hits in zip(asked, answers, strict=True)
        ]
        return float(np.mean(first))


def share(ranks: Sequence[int]) -> str:
    first = sum(rank == 1 for rank in ranks)
    return f"{100 * first / len(ranks):.1f}% ({first} of {len(ranks)})"


def mrr(ranks: Sequence[int]) -> float:
    return float(np.mean([1 / rank for rank in ranks]))


def measure(bench: Bench) -> list[str]:
    before = bench.ranks(bench.unrelated)
    names = made_up()
    single = {file: next(names) for file in bench.length_s}
    for file, name in single.items():
        bench.teach(name, [file])
    groups: dict[str, dict[str, str]] = {}
    for row in rows_of(SENTENCES):
        groups.setdefault(row["name"], {})[row["file"]] = row["sentence"]
    for name, sentences in groups.items():
        bench.teach(name, list(sentences))
    of_four = [(file, sentence) for sentences in groups.values() for file, sentence in sentences.items()]
    of_two = []
    for group, sentences in groups.items():
        for pair in itertools.combinations(sentences, 2):
            name = next(names)
            bench.teach(name, pair)
            of_two += [(file, sentences[file].replace(group, name)) for file in pair]
    bench.taught()
    neutral = [(file, text.format(name)) for file, name in single.items() for text in NEUTRAL]
    of_one = [(file, text.replace(name, single[file])) for name, own in groups.items() for file, text in own.items()]

    def siblings(file: str) -> Sequence[str]:
        return next(list(sentences) for sentences in groups.values() if file in sentences)

    lines = [
        "| sentences | wanted clip first | with the name as a plain word |",
        "| --- | ---: | ---: |",
    ]
    for title, asked in (
        ("name of one clip, nothing else said", neutral),
        ("name of one clip, with its context", of_one),
        ("name of two clips, context of one", of_two),
        ("name of four clips, context of one", of_four),
    ):
        lines.append(f"| {title} | {share(bench.ranks(asked))} | {share(bench.ranks(asked, names=False))} |")
        print(lines[-1], flush=True)
    true = bench.first_of([(file, bench.caption[file]) for file, _ in of_four], siblings)
    lines += [
        "",
        f"The wanted clip is the first of all {len(bench.unrelated)} videos and photos. For comparison: the true "
        f"caption, which names the kind of thing, finds its clip among the four in {100 * true:.1f}% of the 40.",
        "",
        f"| {len(bench.unrelated)} sentences without a name | mean reciprocal rank before | "
        f"with {len(bench.index.names.list())} names taught | change |",
        "| --- | ---: | ---: | ---: |",
    ]
    after = bench.ranks(bench.unrelated)
    lines.append(f"| in the default order | {mrr(before):.3f} | {mrr(after):.3f} | {mrr(after) - mrr(before):+.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = "\n".join([*measure(Bench(options.data, Path(scratch))), ""])
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
