"""Scene bounds from steps between frames and from sampled frames: hard cuts, dissolves, fades, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.decode.frames.changes import Step
from impart.video.scenes.bounds import SceneBounds, find_scenes
from impart.video.scenes.samples import THUMB_PX, Samples

FPS = 4


def vector(number: int) -> np.ndarray:
    row = np.random.default_rng(number).standard_normal(64)
    return (row / np.linalg.norm(row)).astype(np.float32)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(100 + number).integers(0, 256, (THUMB_PX, THUMB_PX)).astype(np.float32)


def film(*mixes: dict[int, float]) -> Samples:
    """Samples whose images and embeddings are mixes of numbered shots; what is missing to 1 is black."""
    rows = [sum((part * vector(number) for number, part in mix.items()), 0.01 * vector(99)) for mix in mixes]
    thumbs = [
        sum((part * image(number) for number, part in mix.items()), np.zeros((THUMB_PX, THUMB_PX))) for mix in mixes
    ]
    retrieval = np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float16)
    return Samples.of_segments(
        retrieval,
        np.clip(np.stack(thumbs), 0, 255).astype(np.uint8),
        starts_s=np.arange(len(rows)) / FPS,
        weights=[1] * len(rows),
        fps=FPS,
    )


def still(number: int, count: int) -> list[dict[int, float]]:
    return [{number: 1.0}] * count


def mixed(one: int, other: int, parts: list[float]) -> list[dict[int, float]]:
    return [{one: 1 - part, other: part} for part in parts]


def found(samples: Samples, *steps: Step, threshold: float = 0.55) -> SceneBounds:
    return find_scenes(samples, steps, end_s=len(samples) / FPS, threshold=threshold)


def step(after_s: float, *, change: float = 60.0, calm: float = 1.0) -> Step:
    return Step(before_s=after_s - 0.04, after_s=after_s, change=change, calm=calm)


def test_a_hard_cut_has_the_time_of_its_step():
    bounds = found(film(*still(0, 8), *still(1, 8)), step(1.88))
    assert bounds == SceneBounds((0, 8), (0.0, 1.88), (1.88, 4.0), ("cut", "cut"))


def test_a_step_within_a_shot_is_no_cut():
    assert found(film(*still(0, 16)), step(1.88)).kinds == ("cut",)


def test_beside_other_steps_the_embeddings_must_differ_more():
    samples = film(*still(0, 8), *mixed(0, 1, [0.42] * 8))  # a cosine of 0.8
    assert len(found(samples, step(1.88, change=60, calm=1)).first) == 2
    assert len(found(samples, step(1.88, change=60, calm=17)).first) == 1  # 3.3 times the movement around it
    assert len(found(film(*still(0, 8), *still(1, 8)), step(1.88, change=60, calm=17)).first) == 2


def test_of_two_steps_between_two_samples_the_larger_one_counts():
    samples = film(*still(0, 8), *still(1, 8))
    assert found(samples, step(1.8, change=20), step(1.92, change=70)).start_s == (0.0, 1.92)


def test_shots_of_one_sample_are_scenes():
    samples = film(*still(0, 4), *still(1, 1), *still(2, 1), *still(3, 4))
    bounds = found(samples, step(0.96), step(1.2), step(1.48))
    assert bounds.first == (0, 4, 5, 6)
    assert bounds.end_s == (0.96, 1.2, 1.48, 2.5)


@pytest.mark.parametrize("parts", [[0.5], [0.25, 0.75], [0.2, 0.4, 0.6, 0.8], [i / 8 for i in range(1, 8)]])
def test_a_dissolve_is_one_bound_near_its_middle(parts: list[float]):
    bounds = found(film(*still(0, 10), *mixed(0, 1, parts), *still(1, 10)))
    middle_s = (10 + len(parts) / 2) / FPS
    assert bounds.kinds == ("cut", "dissolve")
    assert abs(bounds.start_s[1] - middle_s) <= 0.25


def test_a_fade_through_black_is_one_bound():
    parts = [0.75, 0.5, 0.25, 0.0]
    samples = film(*still(0, 10), *({0: part} for part in parts), *({1: part} for part in parts[::-1]), *still(1, 10))
    bounds = found(samples)
    assert bounds.kinds == ("cut", "fade")
    assert abs(bounds.start_s[1] - 14 / FPS) <= 0.25


def test_a_fade_to_black_that_ends_with_a_cut_is_one_bound():
    samples = film(*still(0, 10), *({0: part} for part in (0.7, 0.4, 0.1, 0.0)), *still(1, 10))
    bounds = found(samples, step(3.5))
    assert bounds.start_s == (0.0, 3.5)


def test_a_change_of_content_without_a_mix_is_no_dissolve():
    turning = [{number: 1.0} for number in range(2, 8)]  # as of a quick pan: every sample is another image
    assert found(film(*still(0, 10), *turning, *still(1, 10))).kinds == ("cut",)


def test_a_dissolve_between_similar_images_is_none():
    samples = film(*still(0, 10), *mixed(0, 1, [0.1, 0.2, 0.3, 0.4]), *mixed(0, 1, [0.45] * 10))
    assert found(samples).kinds == ("cut",)


def test_a_still_of_an_hour_takes_few_samples():
    samples = Samples.of_segments(
        np.stack([vector(0), vector(1)]),
        np.zeros((2, THUMB_PX, THUMB_PX), np.uint8),
        starts_s=[0.0, 3600.0],
        weights=[14_400, 4],
        fps=FPS,
    )
    assert len(samples) == 16
    assert samples.times_s[11] == pytest.approx(3599.75)
    assert find_scenes(samples, [step(3600.0)], end_s=3601.0, threshold=0.55).start_s == (0.0, 3600.0)


def test_a_video_without_segments_has_no_scene():
    empty = Samples.of_segments(
        np.zeros((0, 8)), np.zeros((0, THUMB_PX, THUMB_PX), np.uint8), starts_s=[], weights=[], fps=FPS
    )
    assert find_scenes(empty, [], end_s=0.0, threshold=0.55) == SceneBounds((), (), (), ())


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 starts"):
        Samples.of_segments(
            np.zeros((3, 8)), np.zeros((3, THUMB_PX, THUMB_PX), np.uint8), starts_s=[0, 1], weights=[1] * 3, fps=FPS
        )


def test_slides_among_slides_are_scenes():
    samples = film(*[one for number in range(6) for one in still(number, 4)])
    slides = [Step(before_s=at - 1.0, after_s=float(at), change=60.0, calm=70.0) for at in range(1, 6)]
    assert found(samples, *slides).start_s == (0, 1, 2, 3, 4, 5)
    assert found(samples, *(step(float(at), calm=70.0) for at in range(1, 6))).start_s == (0,)  # frames of movement
    alike = film(*[{0: 1.0, number: 0.5} for number in range(1, 7) for _ in range(4)])
    assert found(alike, *slides).start_s == (0,)
