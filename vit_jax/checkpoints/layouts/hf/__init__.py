"""Models of Hugging Face's transformers: ViT and related models, BiT, Swin, and Flax files."""
