"""Towers of mode `pretrain`: transformers' CLIP, small convolutional towers, a projection of frozen sentences."""
