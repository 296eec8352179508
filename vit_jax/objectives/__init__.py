"""From the outputs of a model and the targets of a batch to a loss and its metrics."""
