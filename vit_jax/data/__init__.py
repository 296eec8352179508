"""From images to batches: sources, host preprocessing, the pipeline, device augmentation."""
