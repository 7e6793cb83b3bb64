"""A RAM as the torch module that it is: for research, where a graph on disk would be one step too many.

    encoder = AugmentedEncoder(base, references, ModuleRam(ram, base))

The module runs in evaluation mode and without gradients, on its own device, with the weights that it has at that
moment. To index and serve, write it with `impart.augment.checkpoint.write_checkpoint`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy.typing as npt
import torch

from impart.augment.learned import RamAugmentation
from impart.augment.ram import Ram, Retrieved
from impart.encoders.base import Encoder, Float32

__all__ = ["ModuleRam"]


class ModuleRam(RamAugmentation):
    """A torch module in place of its export.

    Args:
        ram: the module.
        base: the encoder that it is trained with.
    """

    def __init__(self, ram: Ram, base: Encoder) -> None:
        super().__init__(ram.settings, encoder_id=base.traits.id, encoder_fingerprint=base.fingerprint)
        self.ram = ram

    def __repr__(self) -> str:
        return f"ModuleRam({self.settings})"

    @property
    def place(self) -> str:
        return "in memory"

    @property
    def digest(self) -> str:
        """Over weights and settings, as they are now."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.settings), sort_keys=True).encode())
        for name, tensor in self.ram.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def run(self, feeds: dict[str, npt.NDArray[Any]]) -> tuple[Float32, Float32, Float32]:
        device = next((parameter.device for parameter in self.ram.parameters()), torch.device("cpu"))
        found = Retrieved(**{name: torch.tensor(array, device=device) for name, array in feeds.items()})
        learning = self.ram.training
        self.ram.eval()
        try:
            with torch.no_grad():
                output = self.ram(found)
        finally:
            self.ram.train(learning)
        added, img, txt = (
            part.float().cpu().numpy() for part in (output.added, output.img_weights, output.txt_weights)
        )
        return added, img, txt
