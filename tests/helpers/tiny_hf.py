"""Small random CLIP and SigLIP models in the format of transformers, with small tokenizers."""

from __future__ import annotations

import importlib
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


TWO_TOWERS = (
    "siglip2",
    "align",
    "altclip",
    "chinese_clip",
    "metaclip_2",
    "clipseg",
    "vision-text-dual-encoder",
)
IMAGE_MODELS = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "convnext", "convnextv2")
_TOWER = {"hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_words(folder: Path, **kwargs: Any) -> int:
    """Write a word-level tokenizer with RoBERTa's special tokens; return the number of its words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "of", "dog", "Two", "RED", "red", "squares", "word", "the"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **kwargs).save_pretrained(folder)
    return len(words)


def write_two_towers(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Write a two-tower model of a family in `TWO_TOWERS`; its text tower takes 16 tokens."""
    import torch
    import transformers as T

    vocabulary = _write_gemma_words(folder) if kind == "siglip2" else write_words(folder)
    vision: dict[str, Any] = {**_TOWER, "image_size": SIZE_PX, "patch_size": 8}
    text: dict[str, Any] = {**_TOWER, "vocab_size": vocabulary, "max_position_embeddings": 16}
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    square = {"height": SIZE_PX, "width": SIZE_PX}
    torch.manual_seed(seed)
    if kind == "siglip2":
        patches = {**_TOWER, "num_patches": 16, "patch_size": 8}
        text["projection_size"] = DIM
        model = T.Siglip2Model(T.Siglip2Config(text_config=text, vision_config=patches))
        _image_processor("siglip2", "Siglip2", patch_size=8, max_num_patches=20).save_pretrained(folder)
    elif kind == "align":
        blocks = {"kernel_sizes": [3], "in_channels": [32], "out_channels": [DIM], "strides": [1], "expand_ratios": [2]}
        more = {"depthwise_padding": [], "num_block_repeats": [1], "hidden_dim": DIM, "image_size": SIZE_PX}
        towers = {"text_config": text, "vision_config": {**blocks, **more, "width_coefficient": 1.0}}
        model = T.AlignModel(T.AlignConfig(**towers, projection_dim=DIM))
        _image_processor(
            "efficientnet",
            "EfficientNet",
            size={"height": 40, "width": 40},
            crop_size=square,
            do_center_crop=True,
            do_normalize=False,
            rescale_factor=1 / 127.5,
            rescale_offset=True,
            include_top=False,
        ).save_pretrained(folder)
    elif kind == "altclip":
        text |= {**ends, "project_dim": DIM, "max_position_embeddings": 18}
        model = T.AltCLIPModel(T.AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM))
        _clip_processor().save_pretrained(folder)
    elif kind == "chinese_clip":
        model = T.ChineseCLIPModel(
            T.ChineseCLIPConfig(text_config=text | {"pad_token_id": 1}, vision_config=vision, projection_dim=DIM)
        )
        _image_processor(
            "chinese_clip", "ChineseCLIP", size={"shortest_edge": SIZE_PX}, crop_size=square
        ).save_pretrained(folder)
    elif kind == "metaclip_2":
        model = T.MetaClip2Model(T.MetaClip2Config(text_config=text | ends, vision_config=vision, projection_dim=DIM))
        _clip_processor().save_pretrained(folder)
    elif kind == "clipseg":
        # Its images are larger than those of its training: the positions are interpolated.
        small = vision | {"image_size": 16}
        model = T.CLIPSegModel(T.CLIPSegConfig(text_config=text | ends, vision_config=small, projection_dim=DIM))
        _image_processor("vit", "ViT", size=square, resample=3).save_pretrained(folder)
    else:
        assert kind == "vision-text-dual-encoder", kind
        config = T.VisionTextDualEncoderConfig.from_vision_text_configs(
            T.ViTConfig(**vision), T.BertConfig(**text, pad_token_id=1), projection_dim=DIM
        )
        model = T.VisionTextDualEncoderModel(config)
        _image_processor("vit", "ViT", size=square).save_pretrained(folder)
    _save(model, folder)
    return folder


def _write_gemma_words(folder: Path) -> int:
    """Write a tokenizer of SigLIP 2, of characters and a few merges; return the number of its tokens."""
    from transformers import Siglip2Tokenizer

    merges = [("d", "o"), ("do", "g"), ("p", "h"), ("r", "e")]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"\u2581abcdefghijklmnopqrstuvwxyz,!"]
    words += ["".join(pair) for pair in merges]
    Siglip2Tokenizer(vocab={word: index for index, word in enumerate(words)}, merges=merges).save_pretrained(folder)
    return len(words)


def write_image_model(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Write an image model of a family in `IMAGE_MODELS`."""
    import torch
    import transformers as T

    vision: dict[str, Any] = {**_TOWER, "image_size": SIZE_PX, "patch_size": 8}
    stages = {"hidden_sizes": [8, 8, 16, DIM], "depths": [1, 1, 1, 1], "image_size": SIZE_PX}
    classes: dict[str, tuple[str, dict[str, Any]]] = {
        "vit": ("ViT", vision),
        "dinov2": ("Dinov2", vision),
        "dinov2_with_registers": ("Dinov2WithRegisters", vision),
        "dinov3_vit": ("DINOv3ViT", vision),
        "convnext": ("ConvNext", stages),
        "convnextv2": ("ConvNextV2", stages),
    }
    name, sizes = classes[kind]
    torch.manual_seed(seed)
    _save(getattr(T, f"{name}Model")(getattr(T, f"{name}Config")(**sizes)), folder)
    if kind == "vit":
        processor = _image_processor("vit", "ViT", size={"height": SIZE_PX, "width": SIZE_PX})
    elif kind.startswith("dinov2"):
        processor = _image_processor("bit", "Bit", size={"shortest_edge": 40}, crop_size=SIZE_PX)
    elif kind.startswith("convnext"):
        processor = _image_processor("convnext", "ConvNext", size={"shortest_edge": SIZE_PX})
    else:  # the processor of DINOv3 needs torchvision: written as its published files are
        settings = {"do_resize": True, "size": {"height": SIZE_PX, "width": SIZE_PX}, "resample": 2}
        levels = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True}
        content = {"image_processor_type": "DINOv3ViTImageProcessorFast", **settings, **levels, "do_rescale": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
        return folder
    processor.save_pretrained(folder)
    return folder


def _clip_processor() -> Any:
    return _image_processor("clip", "CLIP", size={"shortest_edge": SIZE_PX}, crop_size=SIZE_PX)


def _image_processor(package: str, name: str, **settings: Any) -> Any:
    """Make an image processor on PIL, which needs no torchvision."""
    module = importlib.import_module(f"transformers.models.{package}.image_processing_pil_{package}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)
