"""The folders of Hugging Face's transformers: ViT and its kin, BiT, Swin, and Flax's files."""
