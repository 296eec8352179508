"""The config of the runs here, for a resume; README.md says how they were made."""

from vit_jax.config import default_config


def get_config(name="vit"):
    config = default_config()
    config.image_size = (28, 21)
    config.batch_size = 16
    config.total.epochs = 0.0
    config.total.steps = 4
    config.log_every.steps = 1
    config.evaluate_every.percent = 50.0
    config.checkpoint.every.percent = 50.0
    config.checkpoint.keep_last = 1
    config.checkpoint.keep_best = 0
    config.eval_batch_size = 500
    config.ema = 0.9
    config.model.stochastic_depth = 0.1
    config.model.remat = "none"
    config.data.crop = "shift"
    config.data.shift = 2
    config.data.eval_crop = 1.0
    config.data.mixup = 0.2
    config.data.mean = (0.286, 0.286, 0.286)
    config.data.std = (0.353, 0.353, 0.353)
    config.data.threads = 2
    config.objective.label_smoothing = 0.1
    config.optimizer.weight_decay = 0.05
    config.optimizer.accumulate = 2
    config.schedule.warmup.steps = 1
    config.model.name = {"vit": "Ti/7", "beit": "BEiT-pretrain-Ti/7"}[name]
    config.model.width = 16
    config.model.depth = 2
    config.model.mlp_dim = 32
    config.model.num_heads = 2
    config.model.dropout = 0.1
    if name == "vit":
        config.model.pool = "gap"
        config.model.representation_size = 8
        config.optimizer.frozen = ("position",)
    return config
