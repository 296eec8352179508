"""timm's ViT, BiT and Swin: their layouts, the config.json beside them, and timm's own models."""
