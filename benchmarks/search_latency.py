"""Measure how long a search of 100 hours takes, by kind of query: moments beside the best frame.

    python benchmarks/search_latency.py            # 1.4 million segments; 4 GB of memory

The segments are random unit vectors in films of two hours, in scenes of five seconds; no model is run, so the time of
the text model is not contained. The first search of a process also computes the means and the hubness: it is reported
apart. Kinds are measured in turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from impart import load_encoder
from impart.config import DecodeSettings, IndexSettings, SearchSettings
from impart.encoders.base import l2_normalise
from impart.retrieval.hubness import bundled_bank
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Kind, Store
from impart.video.names.find import smoothed, windows
from impart.video.names.presence import Background, Detector
from impart.video.search.cutoff import Asked
from impart.video.search.query import Query, SearchOptions
from impart.video.search.rank.hits import rank_vectors
from impart.video.search.searcher import Searcher
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.derived import Derived

FILM_S, SCENE_S, FPS = 7200, 5, 4
RETRIEVAL_DIM = 256


def random_snapshot(hours: float, *, dim: int, seed: int) -> Snapshot:
    """Make a snapshot of films of two hours; the segments of a scene are near to each other."""
    rng = np.random.default_rng(seed)
    films = max(1, round(hours * 3600 / FILM_S))
    per_film, per_scene = FILM_S * FPS, SCENE_S * FPS
    total = films * per_film
    vectors = np.empty((total, dim), np.float16)
    for first in range(0, total, per_film):
        centres = np.repeat(rng.standard_normal((per_film // per_scene, dim), np.float32), per_scene, axis=0)
        vectors[first : first + per_film] = l2_normalise(centres + rng.standard_normal((per_film, dim), np.float32))
    start_s = np.tile(np.arange(per_film) / FPS, films)
    scenes = np.arange(0, total, per_scene)
    manifest = IndexManifest(
        encoder_id="mini",
        encoder_fingerprint="",
        dim=dim,
        retrieval_dim=0,
        decode=DecodeSettings(),
        index=IndexSettings(),
        augmentation=None,
        versions={},
        created_at="",
    )
    return Snapshot(
        state="",
        manifest=manifest,
        video_ids=tuple(str(film) for film in range(films)),
        paths=tuple(Path(f"/{film}.mp4") for film in range(films)),
        offsets=np.arange(films + 1) * per_film,
        scenes=scenes,
        start_s=start_s,
        end_s=start_s + 1 / FPS,
        weight=np.ones(total, np.int32),
        vectors=vectors,
        blend=None,
        scene_start_s=start_s[scenes],
        scene_end_s=start_s[scenes] + SCENE_S,
        durations_s=np.full(films, float(FILM_S)),
        recorded_at=np.full(films, np.nan),
        modified_at=np.full(films, np.nan),
        kinds=tuple(cast("list[Kind]", ["video"] * films)),
        read_retrieval=lambda: np.zeros((total, 0), np.float16),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=100)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--data", type=Path, help="not used: no data is needed")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    encoder = load_encoder("mini")
    snapshot = random_snapshot(options.hours, dim=encoder.traits.dim, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        searcher = Searcher(Store(Path(scratch)), encoder_of=lambda _: encoder, settings=SearchSettings())
        bank = bundled_bank(encoder)
        searcher.state.bank = bank
        derived = Derived(snapshot)
        texts = np.random.default_rng(1).standard_normal((options.repeat, encoder.traits.dim), np.float32)
        vectors = l2_normalise(texts)

        def asked(*, text: bool, **keywords: Any) -> Callable[[int], None]:
            groups = searcher._groups(derived, SearchOptions.of(SearchSettings(), **keywords))

            def search(number: int) -> None:
                hubness = derived.hubness(bank, groups) if text and bank is not None else None
                by_text = np.array([text])
                one = vectors[number : number + 1]
                (found,) = rank_vectors(one, groups, by_text=by_text, hubness=hubness, bank=bank)
                if found.complete is not None:
                    found.complete(found.hits)

            return search

        def in_sequence(number: int) -> None:
            later = Query(text="b")
            query, pair = Query(text="a", then=later), vectors[[number, number - 1]]
            wanted = Asked(query=query, vectors=pair, by_text=np.array([True, True]))
            options = SearchOptions.of(SearchSettings())
            searcher._sequences(wanted, searcher._groups(derived, options), bank)

        rows = l2_normalise(np.random.default_rng(2).standard_normal((len(snapshot), RETRIEVAL_DIM), np.float32))
        frames = rows.astype(np.float16)
        del rows
        background = Background.of(frames)
        lengths, around = background.lengths(frames), windows(snapshot.start_s, snapshot.end_s, snapshot.scenes)

        def by_name(number: int) -> None:
            detector = Detector.of(frames[3 * number : 3 * number + 3], background)
            detector.as_presence(smoothed(detector.z_scores(frames, lengths), *around))

        kinds = {
            "text, moments of videos": asked(text=True),
            "text, `--group moment`": asked(text=True, group="moment"),
            "text, `--by mean`": asked(text=True, by="mean"),
            "text, `--by frame`": asked(text=True, by="frame"),
            "image, moments of videos": asked(text=False),
            "image, `--by frame`": asked(text=False, by="frame"),
            "text, `--then`": in_sequence,
            "presence of a name (3 images), not kept yet": by_name,
        }
        first: dict[str, float] = {}
        spent: dict[str, list[float]] = {name: [] for name in kinds}
        for name, search in kinds.items():
            began = time.perf_counter()
            search(0)
            first[name] = time.perf_counter() - began
        for number in range(options.repeat):
            for name, search in kinds.items():
                began = time.perf_counter()
                search(number)
                spent[name].append(1000 * (time.perf_counter() - began))
    lines = [
        f"{len(snapshot):,} segments of {len(snapshot.paths)} films, {options.repeat} queries of each kind, "
        "without the time of the text model.",
        "",
        "| query | p50 | p95 | first search of a process |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, times in spent.items():
        p50, p95 = np.percentile(times, (50, 95))
        lines.append(f"| {name} | {p50:.0f} ms | {p95:.0f} ms | {first[name]:.1f} s |")
    for kind in ("text", "image"):
        ours, frame = (np.median(spent[f"{kind}, {what}"]) for what in ("moments of videos", "`--by frame`"))
        lines.append(f"| moments / best frame, {kind} | {ours / frame:.2f} | | |")
    text = "\n".join([*lines, ""])
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
