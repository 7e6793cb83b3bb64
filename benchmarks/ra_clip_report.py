"""Make the tables and plots of `benchmarks/ra_clip.py`, from its figures.jsonl and the logs of the runs.

The tables are written into docs/ra-clip.md between `<!-- name -->` and `<!-- /name -->`; other text does not change.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["insert", "main_tables", "mean_spread", "question_table", "read_figures", "write_report"]

ZEROSHOT = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "caltech101": "Caltech-101",
    "tiny_imagenet32": "Tiny-ImageNet-32",
}
RECALLS = {
    f"{name}_r{at}": f"{shown} R@{at}"
    for name, shown in (("flickr8k", "Flickr8k"), ("panda", "panda"))
    for at in (1, 5, 10)
}
ROWS = {
    ("clip", "base"): "CLIP",
    ("clip", "vanilla-paper"): "Vanilla over CLIP, the paper's weights",
    ("clip", "vanilla"): "Vanilla over CLIP, gated",
    ("paper", "ram"): "RA-CLIP, paper form",
    ("normalised", "ram"): "RA-CLIP, normalised",
    ("gated", "ram"): "RA-CLIP, gated",
    ("learned-vanilla", "ram"): "RA-CLIP, form `vanilla`",
    ("paper", "base"): "paper form, its v before RAM",
    ("normalised", "base"): "normalised, its v before RAM",
    ("gated", "base"): "gated, its v before RAM",
    ("learned-vanilla", "base"): "form `vanilla`, its v before RAM",
}
CHANGES = {
    "": "as in the main table",
    "layers2": "2 layers",
    "encoder": "the encoder retrieves (searched again every 2 epochs)",
    "flickr8k": "trained with references of Flickr8k alone",
    "random50": "half of the draws with random references",
    "k1": "trained with K = 1",
    "k32": "trained with K = 32",
    "use10": "trained with a tenth of the references",
}
KINDS = {
    None: "own: the held-out tenth of all sources",
    "flickr8k": "captions alone (Flickr8k)",
    "names": "the other sources alone (names, textbooks)",
    "random": "own, but random rows in the place of the nearest",
}
Line = dict[str, Any]


def read_figures(out: Path) -> list[Line]:
    """Read the lines of complete runs; a run that was stopped is measured again and counts once."""
    lines = [json.loads(line) for line in (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    done = {line["run"] for line in lines if line["question"] == "done"}
    last = {(line["run"], line["question"], line.get("form"), str(line.get("value"))): line for line in lines}
    return [line for line in last.values() if line["run"] in done]


def mean_spread(values: Sequence[float]) -> str:
    """Format the mean, with the standard deviation between seeds if there are several.

    >>> mean_spread([50.0, 52.0, 54.0]), mean_spread([50.04])
    ('52.0 ± 2.0', '50.0')
    """
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a markdown table; the first column is text, the others are numbers."""
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def main_tables(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Make the tables of zero-shot and retrieval per variant; the gain is over CLIP of the same seed."""
    found = _main(lines)
    clip = found.get(("clip", "base"), {})
    zeroshot, recalls = [], []
    for key, shown in ROWS.items():
        seeds = found.get(key)
        if not seeds:
            continue
        cells = [mean_spread([figures[name] for figures in seeds.values()]) for name in ZEROSHOT]
        mean = mean_spread([figures["zeroshot"] for figures in seeds.values()])
        gains = [seeds[seed]["zeroshot"] - clip[seed]["zeroshot"] for seed in seeds if seed in clip]
        gain = "" if key == ("clip", "base") or not gains else f"{statistics.mean(gains):+.1f}"
        zeroshot.append([shown, str(len(seeds)), *cells, mean, gain])
        recalls.append([shown, *(mean_spread([figures[name] for figures in seeds.values()]) for name in RECALLS)])
    return (
        table(["", "seeds", *ZEROSHOT.values(), "mean", "over CLIP"], zeroshot),
        table(["", *RECALLS.values()], recalls),
    )


def _main(lines: Sequence[Line]) -> dict[tuple[str, str], dict[int, dict[str, float]]]:
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for line in lines:
        if line["question"] == "main" and not line["change"]:
            found.setdefault((line["variant"], line["form"]), {})[line["seed"]] = line["figures"]
    return found


def _pick(lines: Sequence[Line], question: str, **wanted: object) -> list[Line]:
    return [
        line
        for line in lines
        if line["question"] == question and all(line.get(name) == value for name, value in wanted.items())
    ]


def question_table(
    lines: Sequence[Line], question: str, values: dict[Any, str], head: str, *, names: Sequence[str] = ("zeroshot",)
) -> list[str]:
    """Make a table of each augmented form (seed 0) by a value that was changed at test time."""
    shown = [key for key in ROWS if _pick(lines, question, variant=key[0], form=key[1], seed=0)]
    rows = []
    for value, label in values.items():
        cells = []
        for variant, form in shown:
            line = _pick(lines, question if value is not None else "main", variant=variant, form=form, seed=0)
            line = [item for item in line if item["value"] == value and not item["change"]]
            cells.append(" / ".join(f"{line[0]['figures'][name]:.1f}" for name in names) if line else "")
        if any(cells):
            rows.append([label, *cells])
    return table([head, *(ROWS[key] for key in shown)], rows)


def target_table(lines: Sequence[Line]) -> list[str]:
    """Make the table for references of a test's own domain: this test, the mean of the other three, and CLIP."""
    rows = []
    for key in ROWS:
        cells = []
        for name in ("caltech101", "cifar100"):
            own, others, gains = [], [], []
            for line in _pick(lines, "target", variant=key[0], form=key[1], value=name, change=""):
                clip = _main(lines).get(("clip", "base"), {}).get(line["seed"])
                figures = line["figures"]
                own.append(figures[name])
                rest = [other for other in ZEROSHOT if other != name]
                if clip:
                    gains.append(figures[name] - clip[name])
                    others.append(statistics.mean(figures[other] - clip[other] for other in rest))
            cells += [
                mean_spread(own) if own else "",
                f"{statistics.mean(gains):+.1f}" if gains else "",
                f"{statistics.mean(others):+.1f}" if others else "",
            ]
        if any(cells):
            rows.append([ROWS[key], *cells])
    head = ["", "Caltech-101", "over CLIP", "other three sets", "CIFAR-100", "over CLIP", "other three sets"]
    return table(head, rows)


def change_table(lines: Sequence[Line]) -> list[str]:
    """Make the table of runs trained with changed settings, seed 0, with the unchanged run."""
    rows = []
    for variant, shown in (("normalised", "normalised"), ("learned-vanilla", "form `vanilla`")):
        for change, label in CHANGES.items():
            for line in _pick(lines, "main", variant=variant, form="ram", seed=0, change=change):
                base = _pick(lines, "main", variant=variant, form="base", seed=0, change=change)[0]["figures"]
                figures = line["figures"]
                names = ("cifar10", "cifar100", "caltech101", "tiny_imagenet32", "zeroshot", "flickr8k_r1", "panda_r1")
                cells = [f"{figures[name]:.1f}" for name in names]
                rows.append([f"{shown}: {label}", *cells, f"{figures['zeroshot'] - base['zeroshot']:+.1f}"])
    head = ["", *ZEROSHOT.values(), "mean", "Flickr8k R@1", "panda R@1", "over its own v"]
    return table(head, rows)


def facts_table(lines: Sequence[Line]) -> list[str]:
    """Make the table of references and training time per run."""
    rows = []
    for line in sorted(_pick(lines, "done"), key=lambda item: (item["change"], item["seed"], item["variant"])):
        facts = line["facts"]
        cells = [str(facts[name]) for name in ("trained", "steps", "references", "copies")]
        rows.append([line["run"], *cells, f"{line['train_s']:.0f}"])
    head = ["run", "images", "steps", "references", "of them copies of a test image", "s of training"]
    return table(head, rows)


def insert(text: str, name: str, content: Sequence[str]) -> str:
    """Replace the text between the markers of a name.

    >>> insert("a <!-- t --> old <!-- /t --> b", "t", ["new"])
    'a <!-- t -->\\n\\nnew\\n\\n<!-- /t --> b'
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        return text
    before, rest = text.split(start, 1)
    return "\n\n".join([before + start, "\n".join(content), end + rest.split(end, 1)[1]])


def write_report(out: Path, docs: Path) -> list[str]:
    """Write the tables into docs/ra-clip.md and the plots into docs/ra-clip/; return the lines of the tables."""
    lines = read_figures(out)
    zeroshot, recalls = main_tables(lines)
    sizes = {size: f"{100 * size:g}%" for size in (0.01, 0.03, 0.1, 0.3, 1.0)}
    ks = {k: str(k) for k in (1, 2, 4, 8, 16, 32, 64)}
    tables = {
        "zeroshot": zeroshot,
        "recalls": recalls,
        "target": target_table(lines),
        "kind": question_table(lines, "kind", KINDS, "references", names=("zeroshot", "flickr8k_r1")),
        "k": question_table(lines, "k", ks, "K at test"),
        "size": question_table(lines, "size", sizes, "share of the references"),
        "changes": change_table(lines),
        "facts": facts_table(lines),
    }
    page = docs / "ra-clip.md"
    names = "\n".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in tables)
    text = page.read_text(encoding="utf-8") if page.is_file() else names
    for name, content in tables.items():
        text = insert(text, name, content)
    page.write_text(text, encoding="utf-8")
    _plots(lines, out, docs / "ra-clip")
    return [line for content in tables.values() for line in (*content, "")]


def _plots(lines: Sequence[Line], out: Path, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    clip = _main(lines).get(("clip", "base"), {}).get(0)
    for question, label in (("k", "neighbours K at test"), ("size", "share of the references at test, in %")):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for variant, form in ROWS:
            points = sorted(_pick(lines, question, variant=variant, form=form, seed=0), key=lambda line: line["value"])
            x = [line["value"] * (100 if question == "size" else 1) for line in points]
            if points:
                y = [line["figures"]["zeroshot"] for line in points]
                axes.plot(x, y, marker="o", label=ROWS[variant, form])
        if clip:
            axes.axhline(clip["zeroshot"], color="black", linestyle="--", label="CLIP")
        axes.set(xscale="log", xlabel=label, ylabel="zero-shot top-1, mean of four sets, %")
        axes.legend(fontsize=8)
        figure.savefig(folder / f"{question}.png", dpi=110)
        pyplot.close(figure)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for line in _pick(lines, "done", seed=0, change=""):
        log = (out / line["run"] / "log.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, log) if row["kind"] == "validation"]
        axes.plot([row["step"] for row in rows], [row["t2i_r1"] for row in rows], marker="o", label=line["variant"])
    axes.set(xlabel="step", ylabel="Flickr8k val, text to image R@1, %")
    axes.legend(fontsize=8)
    figure.savefig(folder / "training.png", dpi=110)
    pyplot.close(figure)
