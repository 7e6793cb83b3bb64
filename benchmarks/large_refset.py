"""Measure a large reference set: blending beside encoding, memory, and what its index finds.

    python benchmarks/large_refset.py /tmp/sets/1600k --data ../shared/data --pairs 1600000       # 5 GB, D 640, R 256
    python benchmarks/large_refset.py /tmp/sets/15M --data ../shared/data --pairs 15000000 --dim 64

Photographs and captions are encoded once by `mini` (`real.npz` in the parent folder). Every pair is a mixture of two
of them with noise, so that all differ. An embedding of width 640 is embedding and retrieval embedding side by side;
smaller widths are its first numbers. Queries are photographs that no pair was made of.

The set is written as `impart refset build` writes it, without encoding. Blending and encoding of batches of 64 images
are timed in turns, after one of each, in a process that has opened the set and nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders import load_encoder
from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.files import library_versions, now
from impart.images import load_image

FOLDERS = ("images/flickr8k", "images/openstax", "images/imagenet_sample", "images/more")
PHOTOS, CAPTIONS, QUERIES, BATCH = 14_000, 4_000, 1_000, 64
NOISE = 0.25
SETTINGS = VanillaSettings(k=8, w_img=0.5, w_txt=0.5, tau=0.05, target=0.35)


class Wide:
    """Encoder of any width up to 640 at the cost of `mini`: embedding and retrieval embedding side by side."""

    def __init__(self, base: Encoder, dim: int) -> None:
        self._base, self._dim = base, dim

    @property
    def traits(self) -> EncoderTraits:
        return dataclasses.replace(self._base.traits, id="wide", dim=self._dim)

    @property
    def fingerprint(self) -> str:
        return f"{self._base.fingerprint[:56]}{self._dim:08d}"

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        found = self._base.encode_images(images)
        return ImageEmbeddings(wide(found.embeddings, found.retrieval, self._dim), found.retrieval)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        found = self._base.encode_texts(texts)
        return wide(found, found[:, :256], self._dim)


def wide(embeddings: Float32, retrieval: Float32, dim: int) -> Float32:
    """Join two embeddings of n items to the first `dim` numbers of both, L2-normalised: (n, dim)."""
    return l2_normalise(np.concatenate([embeddings, retrieval], axis=1)[:, :dim])


def files_of(data: Path) -> list[Path]:
    """List the photographs, the same at each call."""
    files = [path for folder in FOLDERS for path in sorted((data / folder).rglob("*.jpg"))]
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:PHOTOS].tolist()]


def encoded(data: Path, kept: Path) -> dict[str, Float32]:
    """Encode photographs and captions, or read what an earlier run kept."""
    if kept.is_file():
        with np.load(kept) as stored:
            return {name: stored[name] for name in stored.files}
    import gzip

    encoder, files, rows = load_encoder("mini"), iter(files_of(data)), []
    while batch := list(islice(files, BATCH)):
        rows.append(encoder.encode_images([load_image(file)[0] for file in batch]))
    with gzip.open(data / "text/captions.txt.gz", "rt") as lines:
        captions = [line.strip() for line in lines]
    chosen = [captions[i] for i in np.random.default_rng(1).permutation(len(captions))[:CAPTIONS].tolist()]
    texts = [encoder.encode_texts(chosen[first : first + BATCH]) for first in range(0, len(chosen), BATCH)]
    made = {
        "embeddings": np.concatenate([one.embeddings for one in rows]),
        "retrieval": np.concatenate([one.retrieval for one in rows]),
        "texts": np.concatenate(texts),
    }
    np.savez(kept, embeddings=made["embeddings"], retrieval=made["retrieval"], texts=made["texts"])
    return made


class Pairs:
    """Draws pairs: mixtures of two photographs and of two captions, with noise."""

    def __init__(self, real: dict[str, Float32], dim: int) -> None:
        self._real, self._dim = {name: rows[:-QUERIES] for name, rows in real.items()}, dim
        self._rng = np.random.default_rng(5)

    def draw(self, count: int) -> tuple[Float32, Float32, Float32]:
        """Draw image embeddings (n, D), text embeddings (n, D) and retrieval embeddings (n, 256)."""
        two = self._rng.integers(0, len(self._real["embeddings"]), (count, 2))
        share = self._rng.uniform(0.5, 0.95, (count, 1)).astype(np.float32)
        image, retrieval = (self._mixed(self._real[name], two, share) for name in ("embeddings", "retrieval"))
        two = self._rng.integers(0, len(self._real["texts"]), (count, 2))
        text = self._mixed(self._real["texts"], two, share)
        return wide(image, retrieval, self._dim), wide(text, text[:, :256], self._dim), retrieval

    def _mixed(self, rows: Float32, two: np.ndarray, share: Float32) -> Float32:
        centres = l2_normalise(share * rows[two[:, 0]] + (1 - share) * rows[two[:, 1]])
        noise = self._rng.standard_normal(centres.shape, np.float32) / np.float32(np.sqrt(centres.shape[1]))
        return l2_normalise(centres + np.float32(NOISE) * noise)


def write_set(folder: Path, pairs: Pairs, encoder: Wide, count: int) -> None:
    """Write a set of `count` pairs row by row, then its index, as a build does."""
    from impart.refset.build import BuiltRows, RestList
    from impart.refset.manifest import ReferenceSetManifest
    from impart.refset.refset import ReferenceSet
    from impart.refset.storage import RowWriter, file_name, read_rows

    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    part = folder / ".pairs-building.0"
    writer = RowWriter(dim=encoder.traits.dim, retrieval_dim=256, storage="float16", path=part)
    while writer.count < count:
        number = min(4096, count - writer.count)
        image, text, retrieval = pairs.draw(number)
        meta = {
            "text": [f"caption of the pair {writer.count + i}" for i in range(number)],
            "source": ["mixture"] * number,
            "licence": [""] * number,
            "hash": [f"{writer.count + i:064x}" for i in range(number)],
            "path": [f"shard-{i % 100:03d}.tar/{writer.count + i:09d}.jpg" for i in range(number)],
        }
        writer.write(meta, image=image, text_embedding=text, retrieval=retrieval)
    writer.close()
    target = part.rename(folder / file_name(writer.fingerprint))
    rows = read_rows(target, count=writer.count, fingerprint=writer.fingerprint, storage="float16")
    manifest = ReferenceSetManifest(
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        fingerprint=writer.fingerprint,
        count=writer.count,
        dim=encoder.traits.dim,
        retrieval_dim=256,
        data=target.name,
        name=folder.name,
        created=now(),
        sources=writer.sources,
        versions=library_versions(),
    )
    print(f"rows written in {time.perf_counter() - began:.0f} s, peak {peak_mb():.0f} MB", flush=True)
    began = time.perf_counter()
    built = BuiltRows(rows, manifest, (), RestList(None))
    made = ReferenceSet(built.rows.data, built.manifest, file=built.rows.file)._indexed("auto")
    print(f"index built and measured in {time.perf_counter() - began:.0f} s: {json.dumps(made.manifest.index)}")
    made.save(folder)
    print(f"saved after {time.perf_counter() - began:.0f} s, peak {peak_mb():.0f} MB", flush=True)


def peak_mb() -> float:
    """Read the largest resident memory of this process, with the pages of mapped files, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """Return the result of a call, and its wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def measure(folder: Path, data: Path, rounds: int) -> dict[str, object]:
    """Open a set, then encode and blend batches in turns."""
    from impart.refset.refset import ReferenceSet

    began = time.perf_counter()
    references = ReferenceSet.open(folder)
    opened = time.perf_counter() - began
    encoder = Wide(load_encoder("mini"), references.manifest.dim)
    augmented = AugmentedEncoder(encoder, references, Vanilla(SETTINGS))
    queries = [load_image(file)[0] for file in files_of(data)[-QUERIES:][: BATCH * rounds]]
    first = timed(partial(augmented.encode_images, queries[:BATCH]))[1][0]
    encoding, blending = [], []
    for turn in range(rounds):
        batch = queries[turn * BATCH % len(queries) :][:BATCH]
        found, spent = timed(partial(encoder.encode_images, batch))
        encoding.append(spent)
        blend, spent = timed(partial(augmented.blend, found))
        blending.append(spent)
        spent = timed(partial(augmented.apply, found.embeddings, blend))[1]
        blending[-1] = (blending[-1][0] + spent[0], blending[-1][1] + spent[1])
    shares = [[b[i] / e[i] for e, b in zip(encoding, blending, strict=True)] for i in (0, 1)]
    return {
        "pairs": len(references),
        "open_s": round(opened, 2),
        "first_batch_s": round(first, 2),
        "encode_ms_per_image": round(1000 * statistics.median(e[0] for e in encoding) / BATCH, 2),
        "encode_cpu_ms_per_image": round(1000 * statistics.median(e[1] for e in encoding) / BATCH, 2),
        "blend_ms_per_image": round(1000 * statistics.median(b[0] for b in blending) / BATCH, 3),
        "blend_cpu_ms_per_image": round(1000 * statistics.median(b[1] for b in blending) / BATCH, 3),
        "share_of_wall": round(statistics.median(shares[0]), 4),
        "share_of_wall_quartiles": [round(x, 4) for x in statistics.quantiles(shares[0], n=4)],
        "share_of_cpu": round(statistics.median(shares[1]), 4),
        "peak_mb": round(peak_mb()),
        "size_mb": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6),
    }


def recall(folder: Path, retrieval: Float32, k: int = 8) -> float:
    """Share of the exact k nearest pairs of photographs outside the set that its index finds."""
    from impart.refset.refset import ReferenceSet
    from impart.retrieval.nearest import PairIndex

    references = ReferenceSet.open(folder)
    found = references.search(retrieval, k).ids
    exact = PairIndex(references.retrieval_rows, kind="exact").search(retrieval, k).ids
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the set; one that is there is measured as it is")
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    parser.add_argument("--pairs", type=int, default=1_600_000)
    parser.add_argument("--dim", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--baseline", type=Path, help="checkout of an older build: it measures the same set")
    parser.add_argument("--only-measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_measure:
        print(json.dumps(measure(options.folder, options.data, options.rounds)))
        return
    options.folder.parent.mkdir(parents=True, exist_ok=True)
    real = encoded(options.data, options.folder.parent / "real.npz")
    if not (options.folder / "manifest.json").is_file():
        write_set(options.folder, Pairs(real, options.dim), Wide(load_encoder("mini"), options.dim), options.pairs)
    given = [__file__, str(options.folder), "--data", str(options.data), "--rounds", str(options.rounds)]
    sources = {"this build": None, **({"baseline": options.baseline} if options.baseline else {})}
    for name, checkout in sources.items():
        variables = os.environ | ({"PYTHONPATH": str(checkout / "src")} if checkout else {})
        print(name, flush=True)
        subprocess.run([sys.executable, *given, "--only-measure"], env=variables, check=True)
    print(f"recall@8 of 256 photographs outside the set: {recall(options.folder, real['retrieval'][-256:]):.4f}")


if __name__ == "__main__":
    main()
