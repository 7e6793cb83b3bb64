"""`impart models`: list models, fetch one from the hub, export one to ONNX, join two."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from impart.cli.output import Format
from impart.files import make_folder

__all__ = ["app"]

app = typer.Typer(help="List, fetch, export and join models.", no_args_is_help=True)

_KNOWN = (
    ("onnx:immich-app/ViT-B-32__openai", "CLIP ViT-B/32 by OpenAI, 224 px, width 512: small and fast"),
    ("onnx:immich-app/ViT-B-16-SigLIP2__webli", "SigLIP 2 ViT-B/16, 224 px, width 768: many languages"),
    ("onnx:immich-app/ViT-SO400M-16-SigLIP2-384__webli", "SigLIP 2 SO400M, 384 px, width 1152: best and slow"),
    ("hf:openai/clip-vit-base-patch32", "CLIP ViT-B/32 through transformers (extra torch)"),
    ("hf:openai/clip-vit-large-patch14", "CLIP ViT-L/14 through transformers (extra torch)"),
    ("hf:google/siglip-base-patch16-224", "SigLIP ViT-B/16 through transformers (extra torch)"),
    ("open_clip:ViT-B-32/laion2b_s34b_b79k", "a model of open_clip (extra open-clip)"),
)
"""Examples for `list`; any other folder or repository of these kinds works too."""


@app.command("list")
def list_models(
    form: Annotated[Format, typer.Option("--format", "-f", help="Print in this format.")] = Format.table,
) -> None:
    """List the bundled model and some that can be fetched; those marked 'here' need no network."""
    rows = [_mini_row(), *({"id": name, "here": _is_here(name), "what": what} for name, what in _KNOWN)]
    if form is Format.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif form is Format.jsonl:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif form is Format.csv:
        import csv

        writer = csv.DictWriter(sys.stdout, ["id", "here", "what"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        width = max(len(row["id"]) for row in rows)
        for row in rows:
            print(f"{row['id']:<{width}}  {'here' if row['here'] else '-':<4}  {row['what']}")


@app.command("get")
def get(
    model_id: Annotated[
        str, typer.Argument(help="Fetch this model: onnx:<hub repo> or hf:<hub repo>, with @revision if wanted.")
    ],
    folder: Annotated[Path | None, typer.Argument(help="Write it to this folder. Default: the hub's cache.")] = None,
) -> None:
    """Fetch a model from the hub, so that it works without a network; fetch it again if it is here."""
    from impart.encoders.hub import HF_FILES, ONNX_FILES, fetch

    scheme, _, name = model_id.partition(":")
    kinds = {"onnx": ONNX_FILES, "hf": HF_FILES}
    if scheme not in kinds:
        raise typer.BadParameter(f"{model_id!r}: only onnx:<hub repo> and hf:<hub repo> are fetched")
    print(f"fetching {name}", file=sys.stderr)
    where = fetch(name, kinds[scheme], into=folder)
    print(f"{scheme}:{where}" if folder else where)


@app.command("export")
def export(
    model_id: Annotated[str, typer.Argument(help="Export this model: hf:<folder or hub repo>.")],
    folder: Annotated[Path, typer.Argument(help="Write to this folder.")],
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Also write 8-bit towers, to FOLDER/int8.")] = True,
) -> None:
    """Export a transformers model to ONNX, and check that its embeddings and logits are the same."""
    scheme, _, name = model_id.partition(":")
    if scheme != "hf":
        raise typer.BadParameter(f"{model_id!r}: only hf:<folder or hub repo> is exported")
    from impart.encoders.onnx.export import export_hf

    for result in export_hf(name, folder, int8=int8, report=lambda line: print(line, file=sys.stderr)):
        print(
            f"onnx:{result.folder}  cosine: images {result.image_cosine:.5f}, texts {result.text_cosine:.5f}"
            f"  logits differ by at most {result.logits:.4f}"
        )


@app.command("pair")
def pair(
    model_id: Annotated[str, typer.Argument(help="Model for the embeddings of images and texts.")],
    retrieval_id: Annotated[
        str, typer.Argument(help="Model that finds the neighbours, such as hf:facebook/dinov2-base.")
    ],
    folder: Annotated[Path, typer.Argument(help="Write to this folder.")],
) -> None:
    """Join two models: embeddings of the first, neighbours by the second, as the RA-CLIP paper does."""
    from impart.encoders import load_encoder
    from impart.encoders.paired import write_paired

    base, retrieval = load_encoder(model_id), load_encoder(retrieval_id)
    base.encode_texts([""])  # an image model is refused here
    make_folder(folder)
    print(write_paired(folder.resolve(), retrieval, base=base))


def _mini_row() -> dict[str, Any]:
    from impart.encoders.onnx.encoder import MINI_FOLDER

    path = MINI_FOLDER / "model.json"
    if not path.is_file():
        return {"id": "mini", "here": False, "what": "the bundled model, missing from this installation"}
    model = json.loads(path.read_text(encoding="utf-8"))
    size, dim = model.get("preprocess", {}).get("size"), model.get("dim")
    return {"id": "mini", "here": True, "what": f"bundled, the default, {size} px, width {dim}: fast on a CPU"}


def _is_here(model_id: str) -> bool:
    """Whether the hub's cache contains the model; the network is not used."""
    from huggingface_hub import try_to_load_from_cache

    scheme, _, name = model_id.partition(":")
    if scheme == "open_clip":
        return False
    wanted = "visual/model.onnx" if scheme == "onnx" else "config.json"
    return isinstance(try_to_load_from_cache(name, wanted), str)
