"""Make the tables and plots of `benchmarks/ra_clip_scratch.py` from its figures.jsonl.

The tables are written into docs/ra-clip.md between `<!-- scratch-NAME -->` and `<!-- /scratch-NAME -->`. Intervals are
of 95%: the bootstrap draws the test items (boxes or captions of one image together) and the seeds, equal for both
models.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ra_clip_report import ZEROSHOT, insert, mean_spread, table
from ra_clip_scratch_figures import Figures, first_reached, share_reached, shown

__all__ = ["write_report"]

LABELS = {
    ("clip", "main"): "CLIP",
    ("normalised", "main"): "RA-CLIP, normalised",
    ("paper", "main"): "RA-CLIP, paper form",
    ("gated", "main"): "RA-CLIP, normalised and gated",
    ("frozen", "main"): "RA-CLIP, frozen reference embeddings",
    ("free", "main"): "RA-CLIP, frozen, label-free retriever",
    ("free-own", "main"): "RA-CLIP, normalised, label-free retriever",
    ("weak8", "main"): "RA-CLIP, frozen, 8 numbers of `mini`",
    ("by-tower", "main"): "RA-CLIP, the image tower retrieves",
    ("random", "main"): "RA-CLIP, random references",
    ("all", "main"): "RA-CLIP, frozen, all images as references",
    ("free-all", "main"): "RA-CLIP, frozen, label-free, all images as references",
    ("free-all-own", "main"): "RA-CLIP, normalised, label-free, all images as references",
    ("clip", "vanilla-paper"): "Vanilla over CLIP, the paper's weights",
    ("clip", "vanilla"): "Vanilla over CLIP, gated",
    ("texts", "main"): "control: neighbours alone, no image tower",
    ("linear", "main"): "control: linear head on the retriever's features",
    ("head", "main"): "control: head with a hidden layer on them",
    ("fused", "main"): "control: image tower + linear head, no references",
    ("all-texts", "main"): "control: neighbours alone, all images as references",
    ("free-texts", "main"): "control, label-free: neighbours alone",
    ("free-all-texts", "main"): "control, label-free: neighbours alone, all images",
    ("free-linear", "main"): "control, label-free: linear head",
    ("free-head", "main"): "control, label-free: head with a hidden layer",
    ("free-fused", "main"): "control, label-free: image tower + linear head",
}
OTHERS = {
    "zeroshot@7": "zero-shot, 7 prompts",
    "probe": "linear probe",
    "coco": "ROI",
    "flickr8k_r1": "Flickr8k R@1",
    "flickr8k_r5": "Flickr8k R@5",
    "panda_r1": "panda R@1",
    "panda_r5": "panda R@5",
}
CLAIMS = {"zeroshot": ("zero-shot", 12.7), "probe": ("linear probe", 6.9), "coco": ("ROI", 2.8)}
FORMS = ("paper", "normalised", "gated", "frozen", "all", "free", "free-all")
PARTS = {
    "frozen": ("clip", "linear", "head", "texts", "fused"),
    "normalised": ("clip", "linear", "head", "texts", "fused"),
    "free": ("clip", "free-linear", "free-head", "free-texts", "free-fused"),
    "free-own": ("clip", "free-linear", "free-head", "free-texts", "free-fused"),
    "weak8": ("clip", "weak8-linear", "weak8-head", "weak8-texts", "weak8-fused"),
    "all": ("clip", "linear", "head", "all-texts", "fused"),
    "free-all": ("clip", "free-linear", "free-head", "free-all-texts", "free-fused"),
    "free-all-own": ("clip", "free-linear", "free-head", "free-all-texts", "free-fused"),
}
CURVES = ("clip", "normalised", "frozen", "free")
EPOCHS = 4.0


def main_tables(figures: Figures) -> tuple[list[str], list[str]]:
    """Make the tables of zero-shot, and of the other tasks."""
    zeroshot, others = [], []
    for (arm, question), label in LABELS.items():
        means = figures.values(arm, "zeroshot", question)
        if not means:
            continue
        cells = [mean_spread(list(figures.values(arm, name, question).values())) for name in ZEROSHOT]
        over = "" if (arm, question) == ("clip", "main") else shown(figures.over((arm, question), CLIP, "zeroshot"))
        zeroshot.append([label, str(len(means)), *cells, mean_spread(list(means.values())), over])
        found = [list(figures.values(arm, name, question).values()) for name in OTHERS]
        others.append([label, *(mean_spread(values) if values else "" for values in found)])
    return (
        table(["", "seeds", *ZEROSHOT.values(), "mean", "over CLIP (95% interval)"], zeroshot),
        table(["", *OTHERS.values()], others),
    )


CLIP = ("clip", "main")


def claims_table(figures: Figures) -> list[str]:
    """Make the table of the papers' claims: the gain of each form, and how much of it the controls have."""
    rows = []
    for name, (label, claimed) in CLAIMS.items():
        for arm in FORMS:
            found = figures.over((arm, "main"), CLIP, name)
            if not found:
                continue
            kind, size = "free-" if arm.startswith("free") else "", "all-" if arm.endswith("all") else ""
            controls = (f"{kind}linear", f"{kind}{size}texts")
            cells = [shown(figures.over((control, "main"), CLIP, name)) for control in controls]
            title = f"{label}: {LABELS[arm, 'main']}"
            rows.append([title, f"+{claimed}", shown(found), verdict(found, claimed), *cells])
    head = ["", "claimed", "over CLIP", "", "linear head over CLIP", "neighbours alone over CLIP"]
    return table(head, rows)


def verdict(found: tuple[float, float, float], claimed: float) -> str:
    """Say what an interval says of a claimed gain.

    >>> verdict((20, 18, 22), 12.7), verdict((3, 1, 5), 12.7), verdict((0.5, -1, 2), 2.8)
    ('reached', 'a gain, smaller', 'no gain shown')
    """
    mean, low, high = found
    if low >= claimed:
        return "reached"
    if mean >= claimed:
        return "reached on average"
    if low > 0:
        return "a gain, smaller" if high < claimed else "a gain, perhaps smaller"
    return "no gain shown" if high > 0 else "a loss"


def parts_table(figures: Figures, name: str = "zeroshot") -> list[str]:
    """Make the table of RA-CLIP against its parts, with the same seeds."""
    rows = []
    for arm, parts in PARTS.items():
        cells = [shown(figures.over((arm, "main"), (part, "main"), name)) for part in parts]
        if any(cells):
            rows.append([LABELS[arm, "main"], *cells])
    columns = ("CLIP", "linear head", "head with a hidden layer", "neighbours alone", "tower + linear head")
    return table(["RA-CLIP less ...", *columns], rows)


def best_part(figures: Figures, arm: str, parts: Sequence[str]) -> tuple[str, tuple[float, float, float]] | None:
    """Return the best of the parts in zero-shot accuracy, and RA-CLIP less this part."""
    means = {part: figures.values(part, "zeroshot") for part in parts}
    known = {part: statistics.mean(values.values()) for part, values in means.items() if values}
    if len(known) < len(parts):
        return None
    best = max(known, key=lambda part: known[part])
    found = figures.over((arm, "main"), (best, "main"), "zeroshot")
    return (best, found) if found else None


def weak_table(figures: Figures) -> list[str]:
    """Make the table of RA-CLIP and its parts by the strength of the retriever."""
    rows = []
    for label, arms in RETRIEVERS.items():
        values = [list(figures.values(arm, "zeroshot").values()) for arm in arms]
        if not values[0]:
            continue
        cells = [mean_spread(each) if each else "" for each in values]
        own = [arm for arm in arms[4:] if figures.values(arm, "zeroshot")]
        compared = {arm: best_part(figures, arm, ("clip", *arms[:3])) for arm in own}
        known = [(arm, found) for arm, found in compared.items() if found]
        if known:
            _, (part, gap) = max(known, key=lambda item: item[1][1][0])
            cells.append(f"{shown(gap)} over {_PARTS.get(part.rsplit('-', 1)[-1], part)}")
        else:
            cells.append("")
        rows.append([label, *cells])
    head = ["retriever", "linear head", "head with a hidden layer", "neighbours alone", "tower + linear head"]
    return table([*head, "RA-CLIP, frozen", "RA-CLIP, normalised", "the better RA-CLIP, less its best part"], rows)


_PARTS = {"clip": "CLIP", "linear": "the linear head", "head": "the head", "texts": "the neighbours"}
RETRIEVERS = {
    "patches, label-free": ("free-linear", "free-head", "free-texts", "free-fused", "free", "free-own"),
    **{
        f"{kept} numbers of `mini`": tuple(
            f"weak{kept}{part}" for part in ("-linear", "-head", "-texts", "-fused", "", "-own")
        )
        for kept in (4, 8, 16, 32)
    },
    "`mini`, 256 numbers": ("linear", "head", "texts", "fused", "frozen", "normalised"),
}
"""Arms by retriever: the controls, RA-CLIP with frozen references, and with those of the towers."""


def forms_table(figures: Figures) -> list[str]:
    """Make the table of the forms of RAM against the paper's."""
    rows = []
    for arm in ("normalised", "gated", "frozen"):
        cells = [shown(figures.over((arm, "main"), ("paper", "main"), name)) for name in ("zeroshot", "probe", "coco")]
        if any(cells):
            rows.append([LABELS[arm, "main"], str(len(set(figures.pick(arm)) & set(figures.pick("paper")))), *cells])
    return table(["less the paper form", "seeds", "zero-shot", "linear probe", "ROI"], rows)


def question_table(figures: Figures, question: str, head: str, labels: Mapping[Any, str]) -> list[str]:
    """Make the table of a value that was changed at test time: mean of the four zero-shot sets."""
    arms = [key for key in LABELS if key[1] == "main" and figures.pick(key[0], question)]
    rows = []
    for value, label in labels.items():
        cells = [list(figures.values(arm, "zeroshot", question, value=value).values()) for arm, _ in arms]
        if any(cells):
            rows.append([label, *(mean_spread(values) if values else "" for values in cells)])
    return table([head, *(LABELS[arm] for arm in arms)], rows)


def target_table(figures: Figures) -> list[str]:
    """Make the table of references of a test's own domain."""
    rows = []
    for arm, question in LABELS:
        cells = []
        for name in ("caltech101", "cifar100"):
            own = figures.values(arm, name, "target", value=name)
            usual = figures.values(arm, name)
            cells.append(mean_spread(list(own.values())) if own else "")
            gains = [own[seed] - usual[seed] for seed in own if seed in usual]
            cells.append(f"{statistics.mean(gains):+.1f}" if gains else "")
        if question == "main" and any(cells):
            rows.append([LABELS[arm, question], *cells])
    return table(["", "Caltech-101", "over usual references", "CIFAR-100", "over usual references"], rows)


def shares_of(figures: Figures, arm: str, name: str = "zeroshot") -> dict[float, list[float]]:
    """Return a figure by share of the training data, a value per seed."""
    found = {1.0: list(figures.values(arm, name).values())}
    for line in figures.lines:
        if line["arm"] == arm and line["question"] == "main" and line["share"] != 1 and line["epochs"] == EPOCHS:
            found.setdefault(line["share"], []).append(line["figures"][name])
    return {share: values for share, values in sorted(found.items()) if values}


def share_table(figures: Figures) -> list[str]:
    """Make the table of shares of the training data, and the share at which an arm equals CLIP on all of it."""
    curves = {arm: shares_of(figures, arm) for arm in CURVES}
    shares = sorted({share for curve in curves.values() for share in curve})
    goal = curves["clip"].get(1.0)
    rows = []
    for arm, curve in curves.items():
        if not curve:
            continue
        cells = [mean_spread(curve[share]) if share in curve else "" for share in shares]
        means = {share: statistics.mean(values) for share, values in curve.items()}
        reached = share_reached(means, statistics.mean(goal)) if goal and len(curve) > 1 else None
        least = reached is not None and reached == min(curve)
        cell = "" if arm == "clip" or reached is None else f"{'<= ' if least else ''}{100 * reached:.0f}%"
        rows.append([LABELS[arm, "main"], *cells, cell])
    head = ["share of the training data", *(f"{100 * share:g}%" for share in shares), "equals CLIP on all at"]
    return table(head, rows)


def cost_table(figures: Figures) -> list[str]:
    """Make the table of training time, and of the time until CLIP's final figure is reached."""
    clip = {seed: lines[-1] for seed, lines in figures.pick("clip", "done").items()}
    goals = {seed: lines[-1]["figures"] for seed, lines in figures.pick("clip", "curve").items()}
    rows = []
    for (arm, question), label in LABELS.items():
        done = {seed: lines[-1] for seed, lines in figures.pick(arm, "done").items() if seed in clip}
        if question != "main" or not done:
            continue
        seeds = sorted(done)
        per_step = [1000 * done[s]["cpu_s"] / done[s]["facts"]["steps"] for s in seeds]
        cells = [mean_spread(per_step), f"{statistics.mean(done[s]['cpu_s'] / clip[s]['cpu_s'] for s in seeds):.2f}"]
        for name in ("zeroshot", "flickr8k_r5"):
            shares, wall = [], []
            for seed in seeds:
                points = [line["figures"] for line in figures.pick(arm, "curve")[seed]]
                point = first_reached(points, name, goals[seed][name])
                if point:
                    shares.append(point["cpu_s"] / clip[seed]["cpu_s"])
                    wall.append(point["wall_s"] / clip[seed]["wall_s"])
            whole = len(shares) == len(seeds)
            cells += [f"{statistics.mean(each):.2f}" if whole else "not reached" for each in (shares, wall)]
        rows.append([label, str(len(seeds)), *cells])
    head = ["", "seeds", "CPU ms per step", "over CLIP", "zero-shot: CPU", "wall", "Flickr8k R@5: CPU", "wall"]
    return table(head, rows)


def facts_table(figures: Figures) -> list[str]:
    """Make the table of all runs."""
    rows = []
    for line in sorted((line for line in figures.lines if line["question"] == "done"), key=lambda item: item["run"]):
        facts = line["facts"]
        cells = [f"{facts[name]}" for name in ("trained", "references", "steps", "parameters")]
        rows.append([line["run"], *cells, f"{line['wall_s']:.0f}", f"{line['cpu_s']:.0f}"])
    return table(["run", "images", "references", "steps", "learned parameters", "wall s", "CPU s"], rows)


def write_report(out: Path, docs: Path) -> list[str]:
    """Write the tables into docs/ra-clip.md, plots and figures into docs/ra-clip/; return the lines of the tables."""
    figures = Figures.read(out)
    zeroshot, others = main_tables(figures)
    sizes = {size: f"{100 * size:g}%" for size in (0.01, 0.03, 0.1, 0.3, 1.0)}
    ks = {k: str(k) for k in (1, 2, 4, 8, 16, 32, 64)}
    tables = {
        "zeroshot": zeroshot,
        "others": others,
        "claims": claims_table(figures),
        "parts": parts_table(figures),
        "parts-probe": parts_table(figures, "probe"),
        "forms": forms_table(figures),
        "weak": weak_table(figures),
        "share": share_table(figures),
        "size": question_table(figures, "size", "share of the references", sizes),
        "k": question_table(figures, "k", "K at test", ks),
        "shuffled": question_table(figures, "shuffled", "", {None: "random references at test"}),
        "target": target_table(figures),
        "cost": cost_table(figures),
        "facts": facts_table(figures),
    }
    page = docs / "ra-clip.md"
    names = "\n".join(f"<!-- scratch-{name} -->\n<!-- /scratch-{name} -->\n" for name in tables)
    text = page.read_text(encoding="utf-8") if page.is_file() else names
    for name, content in tables.items():
        text = insert(text, f"scratch-{name}", content)
    page.write_text(text, encoding="utf-8")
    plots(figures, docs / "ra-clip")
    figures.write(docs / "ra-clip")
    return [line for content in tables.values() for line in (*content, "")]


def plots(figures: Figures, folder: Path) -> None:
    """Draw the learning curves, and the figures by share of the data, size of the references and K."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {name: {} for name in _PLOTS}
    for (arm, question), label in LABELS.items():
        if question != "main":
            continue
        points = figures.pick(arm, "curve").get(0, [])
        if points and arm in (*CURVES, "linear", "free-linear", "paper"):
            by_step = [(line["value"], line["figures"]["zeroshot"]) for line in points]
            drawn["scratch-training"][label] = _columns(by_step)
        for name in ("size", "k"):
            lines = [line for each in figures.pick(arm, name).values() for line in each]
            values = sorted({line["value"] for line in lines})
            drawn[f"scratch-{name}"][label] = _columns(
                (value, statistics.mean(x["figures"]["zeroshot"] for x in lines if x["value"] == value))
                for value in values
            )
        if arm in CURVES:
            shares = shares_of(figures, arm)
            drawn["scratch-share"][label] = _columns((100 * s, statistics.mean(v)) for s, v in shares.items())
    for place, part in enumerate(
        ("linear head", "head", "neighbours alone", "tower + linear head", "RA-CLIP, frozen", "RA-CLIP, normalised")
    ):
        found = [(at, figures.values(arms[place], "zeroshot")) for at, arms in enumerate(RETRIEVERS.values())]
        drawn["scratch-weak"][part] = _columns((at, statistics.mean(v.values())) for at, v in found if v)
    clip = figures.values("clip", "zeroshot")
    if clip:
        drawn["scratch-weak"]["CLIP"] = _columns((at, statistics.mean(clip.values())) for at in range(len(RETRIEVERS)))
    for name, (x_label, scale) in _PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
        shown_lines = {label: points for label, points in drawn[name].items() if len(points[0])}
        colours = pyplot.get_cmap("tab20")
        for number, (label, (x, y)) in enumerate(shown_lines.items()):
            style = "--" if label.startswith("control") else "-"
            axes.plot(x, y, style, marker="o", color=colours(2 * number % 20 + number // 10), label=label)
        axes.set(xscale=scale, xlabel=x_label, ylabel="zero-shot top-1, mean of four sets, %")
        figure.legend(loc="outside right upper", fontsize=7)
        figure.savefig(folder / f"{name}.png", dpi=110)
        pyplot.close(figure)


_PLOTS = {
    "scratch-training": ("step (part of the tests), seed 0", "linear"),
    "scratch-size": ("share of the references at test", "log"),
    "scratch-k": ("neighbours K at test", "log"),
    "scratch-weak": ("retriever: patches, then 4, 8, 16, 32 and 256 numbers of mini", "linear"),
    "scratch-share": ("share of the training data, in %", "log"),
}


def _columns(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    made = list(points)
    return [x for x, _ in made], [y for _, y in made]
