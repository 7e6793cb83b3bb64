"""`impart refset`: build, inspect, grow, merge, tune and use reference sets."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impart.cli.eval.sweep import sweep
from impart.cli.options import (
    DEFAULT_INDEX,
    AddressOption,
    DeviceOption,
    EngineOption,
    IndexOption,
    ThreadsOption,
    WorkersOption,
    encoder_options,
    engine_of,
)
from impart.cli.output import settings_in_words
from impart.config import IndexKind, SolvedSettings, Storage, VanillaSettings
from impart.errors import ReferenceSetError, VideoIndexError

if TYPE_CHECKING:
    from impart.encoders.cluster.pool import Lost, Ready
    from impart.refset.build import BuildProgress, Failure
    from impart.refset.refset import ReferenceSet
    from impart.video.index.index import VideoIndex

__all__ = ["app"]

_SHOWN = 5  # images under two texts that are named

app = typer.Typer(help="Reference sets: teach a model new names by images, without training.", no_args_is_help=True)

app.command()(sweep)

SetArgument = Annotated[Path, typer.Argument(metavar="SET", help="Folder of the reference set.")]
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="A csv, tsv, jsonl, parquet or tar file, or a folder of images or of shards."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write the set to.")]
ModelOption = Annotated[
    str, typer.Option("--encoder", "-e", metavar="ID", help="Model id; the set works with this model only.")
]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the image; default: guessed by its name.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text; default: guessed by its name.")]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        help="Names of class numbers or codes: one name per line, a csv (code, name), or json. "
        "Default: classnames.txt or classes.csv beside the source.",
    ),
]
SourceOption = Annotated[str, typer.Option("--source", help="Collection of the pairs that name none.")]
LicenceOption = Annotated[str, typer.Option(help="Licence of pairs that state none.")]
LimitOption = Annotated[int, typer.Option(min=0, help="At most this many pairs; 0 = all.")]
PerClassOption = Annotated[int, typer.Option(min=0, help="At most this many pairs per text; 0 = all.")]
SeedOption = Annotated[int | None, typer.Option(help="Draw at random with this seed instead of taking the first.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the set in --out, or write beside the other files there.")
]
EnsembleOption = Annotated[
    bool, typer.Option("--class-prompts", help="Texts are class names: average their embeddings over several prompts.")
]


@app.command()
def build(
    source: SourceArgument,
    out: OutOption,
    encoder: ModelOption = "mini",
    fraction: Annotated[
        float, typer.Option(help="Share of the images held out as references; the rest is listed in rest.csv.")
    ] = 1.0,
    limit: LimitOption = 0,
    per_class: PerClassOption = 0,
    seed: SeedOption = None,
    class_prompts: EnsembleOption = False,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    class_names: ClassNamesOption = None,
    source_name: SourceOption = "",
    licence: LicenceOption = "",
    storage: Annotated[Storage, typer.Option(help="Precision of the stored vectors.")] = "float16",
    index: Annotated[
        IndexKind,
        typer.Option(
            help="Index of nearest neighbours; auto is exact up to 100,000 pairs, ivfpq above. Fewer than 20,000 pairs "
            "are always searched exactly."
        ),
    ] = "auto",
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings afterwards.")] = True,
    overwrite: OverwriteOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
    engine: EngineOption = "local",
    address: AddressOption = "",
    workers: WorkersOption = 0,
) -> None:
    """Encode image-text pairs into a new reference set; a build that was stopped continues with the same command."""
    from impart.encoders import load_encoder
    from impart.refset.build import Selection
    from impart.refset.manifest import check_target
    from impart.refset.pairs import Columns
    from impart.refset.refset import ReferenceSet
    from impart.retrieval.prompts import CLASS_PROMPTS

    engine_used = engine_of(engine, address, workers)
    check_target(out.expanduser(), overwrite=overwrite)
    # With `--fraction` the seed draws the hold-out; without it, the pairs of `--limit` and `--per-class`.
    selection = Selection(
        fraction=fraction, limit=limit, per_class=per_class, seed=seed or 0, shuffle=seed is not None and fraction == 1
    )
    model = load_encoder(encoder, **encoder_options(threads, device))
    made = ReferenceSet.build(
        source,
        model,
        path=out,
        columns=Columns(image=image_column, text=text_column),
        class_names=class_names,
        selection=selection,
        prompts=CLASS_PROMPTS if class_prompts else (),
        source=source_name,
        licence=licence,
        storage=storage,
        index=index,
        replace=overwrite,
        on_resume=_show_resume,
        on_progress=_show_progress,
        on_failure=_show_failure,
        engine=engine_used,
        on_worker=_show_worker,
    )
    _end_progress()
    if tune:
        made = _tune(made)
        made.save(out)
    _print_info(made, out, asked=index)
    _report_same_images(made)
    print(f"next: impart refset use {shlex.quote(str(out))} --index {DEFAULT_INDEX}", file=sys.stderr)
    if made.manifest.failed:
        print(f"{made.manifest.failed} pairs could not be used: {out / 'failures.csv'}", file=sys.stderr)
        raise typer.Exit(3)


@app.command()
def info(
    path: SetArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Print the content of a reference set and how it was made."""
    from impart.refset.refset import ReferenceSet

    references = ReferenceSet.open(path)
    if as_json:
        print(json.dumps(references.manifest.as_dict(), ensure_ascii=False, indent=2))
    else:
        _print_info(references, path)


@app.command()
def add(
    path: SetArgument,
    source: SourceArgument,
    per_class: PerClassOption = 0,
    limit: LimitOption = 0,
    class_prompts: EnsembleOption = False,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    class_names: ClassNamesOption = None,
    source_name: SourceOption = "",
    licence: LicenceOption = "",
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings again.")] = True,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Encode more pairs into a set; pairs that it already has are left out."""
    from impart.encoders import load_encoder
    from impart.refset.build import Selection
    from impart.refset.pairs import Columns
    from impart.refset.refset import ReferenceSet
    from impart.retrieval.prompts import CLASS_PROMPTS

    references = ReferenceSet.open(path)
    model = load_encoder(references.encoder_id, **encoder_options(threads, device))
    failures: list[Failure] = []
    grown = references.add(
        source,
        model,
        columns=Columns(image=image_column, text=text_column),
        class_names=class_names,
        selection=Selection(limit=limit, per_class=per_class),
        prompts=CLASS_PROMPTS if class_prompts else (),
        source=source_name,
        licence=licence,
        on_progress=_show_progress,
        on_failure=failures.append,
    )
    _end_progress()
    if tune:
        grown = _tune(grown)
    grown.save(path)
    _print_info(grown, path)
    _report_same_images(grown)
    _remind_of_copies(path)
    for failure in failures:
        _show_failure(failure)
    if failures:
        raise typer.Exit(3)


@app.command()
def merge(
    paths: Annotated[list[Path], typer.Argument(metavar="SET", help="Two or more reference sets of one model.")],
    out: OutOption,
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings.")] = True,
    overwrite: OverwriteOption = False,
) -> None:
    """Merge reference sets into a new one, without duplicates."""
    from impart.refset.manifest import check_target
    from impart.refset.refset import ReferenceSet

    check_target(out.expanduser(), overwrite=overwrite)
    first, *others = [ReferenceSet.open(path) for path in paths]
    merged = first.merge(*others).named(out.resolve().name)
    if tune:
        merged = _tune(merged)
    merged.save(out)
    _print_info(merged, out)
    _report_same_images(merged)


@app.command()
def tune(
    path: SetArgument,
    background: Annotated[
        Path | None,
        typer.Option(help="Reference set of unrelated images, to calibrate similarities; default: the model's own."),
    ] = None,
    closed: Annotated[
        bool,
        typer.Option(
            "--closed",
            help="Tune for images that all show one of the things that the set names: blend more, without a gate. "
            "For classification among these names, not for search: it would harm other images.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the choice without storing it.")] = False,
) -> None:
    """Solve the set, or choose K, weights and tau, by cross-validation on the set itself; it may be switched off."""
    from impart.refset.refset import ReferenceSet

    references = _tune(ReferenceSet.open(path), background, closed=closed)
    if not dry_run:
        references.save(path)
        _remind_of_copies(path)


@app.command()
def use(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="SET",
            help="Folder of a reference set, or of a trained RAM with its own set; with --default or --none the index.",
        ),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    ram: Annotated[
        Path | None,
        typer.Option("--ram", metavar="CHECKPOINT", help="Blend the set by this trained RAM instead of its settings."),
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Use the set that comes with the index's model.")] = False,
    none: Annotated[bool, typer.Option("--none", help="Use no reference set: switch augmentation off.")] = False,
) -> None:
    """Blend this set into a video index from now on; no video is decoded or encoded again."""
    import time

    from impart.refset.manifest import artefact_in
    from impart.video.index.index import VideoIndex

    started = time.monotonic()
    if default or none:
        if default and none:
            raise typer.BadParameter("--default and --none contradict each other: give one of them")
        if ram is not None:
            raise typer.BadParameter("--ram needs a set: leave --default and --none out")
        if path is not None and artefact_in(path.expanduser()) == "a reference set":
            raise typer.BadParameter(f"name the set {path}, or --default or --none, not both")
        index, path = path or index, None
    elif path is None:
        raise typer.BadParameter("name a reference set; or give --default (the model's own set), or --none")
    _check_places(path, index)
    opened = VideoIndex.open(index, create=False)
    if path is None:
        references = _default_set(opened.manifest.encoder_id) if default else None
        opened.use_references(references)
        what = f"the set that comes with its model ({len(references)} pairs)" if references else "no reference set"
    else:
        what = _use(opened, path, ram)
    print(f"{index} now uses {what}, {time.monotonic() - started:.1f} s")


def _use(index: VideoIndex, path: Path, ram: Path | None) -> str:
    """Put a set, or a RAM with its set, in force; return its description."""
    from impart.blending.ram_checkpoint import is_checkpoint, open_ram, references_of
    from impart.refset.refset import ReferenceSet

    own = is_checkpoint(path)
    references = references_of(path) if own else ReferenceSet.open(path)
    trained = ram or (path if own else None)
    index.use_references(references, ram=open_ram(trained) if trained else None)
    return f"{path} ({len(references)} pairs)" + (f", blended by the RAM {trained}" if trained else "")


def _check_places(path: Path | None, index: Path) -> None:
    """Refuse a set in the place of the index, and the other way round."""
    from impart.refset.manifest import artefact_in

    kinds = {"a video index": "video index", "a reference set": "reference set"}
    given = kinds.get(artefact_in(path.expanduser()) if path is not None else "")
    place = kinds.get(artefact_in(index.expanduser()) or "")
    if given == "video index" and place == "reference set":
        raise ReferenceSetError(
            f"{path} is a video index and {index} a reference set: impart refset use {index} --index {path}"
        )
    if given == "video index":
        raise ReferenceSetError(
            f"{path} is a video index: name the reference set first, impart refset use SET --index {path}"
        )
    if place == "reference set":
        raise VideoIndexError(f"{index} is a reference set: name the video index, --index DIR")


def _default_set(encoder_id: str) -> ReferenceSet:
    from impart.encoders.bundled import bundled
    from impart.refset.refset import ReferenceSet

    folder = bundled(encoder_id, "references")
    if folder is None:
        raise ReferenceSetError(
            f"no reference set comes with the model {encoder_id!r}: name a set of your own, or give --none"
        )
    return ReferenceSet.open(folder)


def _tune(references: ReferenceSet, background: Path | None = None, *, closed: bool = False) -> ReferenceSet:
    from impart.blending.tune import bundled_background
    from impart.blending.tune import tune as tune_set
    from impart.cli.progress import progress
    from impart.refset.refset import ReferenceSet

    unrelated = (
        ReferenceSet.open(background)
        if background
        else bundled_background(references.encoder_id, fingerprint=references.encoder_fingerprint)
    )
    with progress("tuning") as show:
        tuned = tune_set(references, background=unrelated, closed=closed, on_progress=show)
    chosen = tuned.settings
    off = chosen.off
    print(f"blending: {'off, it would not help' if off else _in_words(chosen)}")
    if tuned.rule == "leave-one-out":
        print(
            f"  chosen by leave-one-out: of {tuned.items} own images, each without its own row, "
            f"{100 * tuned.before:.1f}% -> {100 * tuned.after:.1f}% right among {tuned.texts} texts"
        )
    elif tuned.rule == "cross-validation":
        print(
            f"  chosen by cross-validation: of {tuned.items} own images, one of each name left out at a time, "
            f"{100 * tuned.before:.1f}% -> {100 * tuned.after:.1f}% right among {tuned.texts} texts"
        )
    elif tuned.rule == "known already":
        print("  off: the model classifies most images correctly, and one image per name cannot be checked: add more")
    else:
        print("  usual weights: too few pairs, or one image per name, to choose weights by leave-one-out")
    if tuned.background and not off:
        gate = f"mean gate on {tuned.background} unrelated images: {100 * tuned.background_gate:.1f}% (low is good)"
        print(f"  {'no gate' if closed else gate}")
    elif not tuned.background and not closed:
        print("  this model has no background set: the gate follows from the set's own images (--background SET)")
    return tuned.references


def _print_info(references: ReferenceSet, path: Path, *, asked: str = "exact") -> None:
    from impart.blending.encoder import settings_of

    manifest = references.manifest
    print(f"{path}: {manifest.count} pairs, {len(set(references.texts))} texts")
    print(f"  encoder    {manifest.encoder_id} ({manifest.encoder_fingerprint[:12]})")
    print(f"  vectors    width {manifest.dim}, retrieval {manifest.retrieval_dim}, {manifest.storage}")
    index = manifest.index
    few = f", not {asked}: a set of this size is always searched exactly"
    other = few if asked not in ("auto", index["kind"]) and index["kind"] == "exact" else ""
    print(f"  search     {index['kind']}{other}, recall@8 {index['recall']:g}")
    print(f"  created    {manifest.created}, rows {manifest.fingerprint[:12]}")
    for source in manifest.sources[:20]:
        licence = source["licence"] or "no licence stated"
        print(f"  source     {source['source'] or 'unnamed'}: {source['pairs']} pairs, {licence}")
    if manifest.duplicates:
        print(f"  left out   {manifest.duplicates} duplicates")
    for note in manifest.notes:
        print(f"  note       {note}")
    if manifest.failed:
        print(f"  failed     {manifest.failed} (failures.csv)")
    blending = "not tuned: the paper's settings"
    if (chosen := settings_of(references)) is not None:
        blending = _in_words(chosen)
    print(f"  blending   {blending}")


def _in_words(settings: VanillaSettings | SolvedSettings) -> str:
    """Name the blender and its settings; those of Vanilla alone, as ever."""
    kind = "solved, " if isinstance(settings, SolvedSettings) else ""
    return kind + settings_in_words(dataclasses.asdict(settings))


def _report_same_images(references: ReferenceSet) -> None:
    """Name images that the set has in two files under two texts."""
    from impart.refset.same_image import same_images

    found = same_images(references)
    for same in found[:_SHOWN]:
        print(
            f"the same image under two texts: {same.first} ({same.first_text}), {same.second} ({same.second_text})",
            file=sys.stderr,
        )
    if len(found) > _SHOWN:
        print(f"... and {len(found) - _SHOWN} more images under two texts", file=sys.stderr)


def _remind_of_copies(path: Path) -> None:
    print(f"an index that uses this set has a copy of it: run 'impart refset use {path} --index DIR' again")


def _show_resume(read: int) -> None:
    print(f"continuing a build that was stopped: {read} pairs were read before", file=sys.stderr)


def _show_progress(event: BuildProgress) -> None:
    if sys.stderr.isatty():
        print(f"\r{event.read} read, {event.written} written, {event.failed} failed", end="", file=sys.stderr)


def _show_worker(event: Ready | Lost) -> None:
    from impart.encoders.cluster.pool import Ready

    what = "is ready" if isinstance(event, Ready) else "was lost; others get its pairs"
    print(f"worker {event.worker} on {event.host} {what}", file=sys.stderr)


def _end_progress() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _show_failure(failure: Failure) -> None:
    print(f"left out: {failure.path}: {failure.reason}", file=sys.stderr)
