"""Images in, batches out: sources, host preprocessing, the pipeline and device augmentation."""
