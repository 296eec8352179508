"""timm's ViT, BiT and Swin: their layouts, their config.json, and building timm's own models."""
