"""A RAM with random weights on the tiny ONNX encoder, as a checkpoint folder with its encoder."""

from __future__ import annotations

from pathlib import Path

from helpers.clips import solid
from helpers.tiny_onnx import write_layout
from impart.config import RamSettings
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.refset.refset import ReferenceSet

SETTINGS = RamSettings(form="vanilla", heads=2, k=2, w_img=0.7, w_txt=0.9, tau=0.2, floor=0.0)


def onnx_colours(encoder: Encoder, names: tuple[str, ...] = ("red", "green", "blue")) -> ReferenceSet:
    """Make a reference set with one pair per colour."""
    made = encoder.encode_images([solid(name) for name in names])
    return ReferenceSet.from_arrays(
        names,
        image=made.embeddings,
        text=encoder.encode_texts([f"a {name} square" for name in names]),
        retrieval=made.retrieval,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="-".join(names),
        source="paint",
    )


def write_tiny_ram(folder: Path) -> Path:
    """Write the checkpoint; the weights of its RAM differ from their initial values."""
    import torch

    from impart.blending.ram import build_ram
    from impart.blending.ram_checkpoint import write_checkpoint

    write_layout(folder / "encoder")
    encoder = load_encoder(f"onnx:{folder / 'encoder'}")
    torch.manual_seed(0)
    ram = build_ram(SETTINGS, dim=encoder.traits.dim, retrieval_dim=encoder.traits.retrieval_dim)
    with torch.no_grad():
        for parameter in ram.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return write_checkpoint(folder, ram, settings=SETTINGS, base=encoder, references=onnx_colours(encoder))
