"""Small random CLIP and SigLIP models in the format of transformers, with small tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZE_PX, DIM = 32, 24
TEXTS = [
    "a photo of a dog",
    "Two RED squares, next to a blue circle!",
    "",
    "word " * 100,
    "the man and the woman walk along the beach at sunset",
]


def write_clip(folder: Path, *, hidden_act: str = "quick_gelu", seed: int = 0) -> Path:
    """Write a CLIP model with a byte-level BPE tokenizer of a few merges."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    characters = _byte_characters()
    words = characters + [f"{character}</w>" for character in characters]
    merges = [("t", "h"), ("th", "e</w>"), ("a", "n"), ("an", "d</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e")]
    words += ["".join(pair) for pair in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=16)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(ids),
            "max_position_embeddings": 16,
            "hidden_act": hidden_act,
            "bos_token_id": ids["<|startoftext|>"],
            "eos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={**sizes, "image_size": SIZE_PX, "patch_size": 8, "hidden_act": hidden_act},
        projection_dim=DIM,
    )
    _save(CLIPModel(config), folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIZE_PX}, crop_size=SIZE_PX).save_pretrained(folder)
    return folder


def write_siglip(folder: Path, *, seed: int = 0) -> Path:
    """Write a SigLIP model with a word-level `tokenizer.json`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = ["<unk>", "</s>", "a", "photo", "of", "dog", "two", "red", "squares", "next", "to", "blue", "word", "the"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>", model_max_length=12
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": DIM,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": len(ids), "max_position_embeddings": 12, "projection_size": DIM},
        vision_config={**sizes, "image_size": SIZE_PX, "patch_size": 8},
    )
    _save(SiglipModel(config), folder)
    SiglipImageProcessorPil(size={"height": SIZE_PX, "width": SIZE_PX}).save_pretrained(folder)
    return folder


def set_json(path: Path, **values: object) -> None:
    """Change keys of a JSON file; None removes a key."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _save(model: Any, folder: Path) -> None:
    """Save a model with larger weights than usual, so that activation functions give different values."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embedding" not in name:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
            elif "embedding" in name:
                parameter.normal_(std=1.0)
    model.save_pretrained(folder)


def _byte_characters() -> list[str]:
    """Return the 256 characters that represent bytes in byte-level BPE."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())
