"""All twins by name."""

from benchmarks.twins import beit, deit, google, mae, timm_classifier
from benchmarks.twins.contract import Twin

TWINS: dict[str, Twin] = {
    "timm_adamw": timm_classifier.ADAMW,
    "timm_lamb": timm_classifier.LAMB,
    "facebook_mae": mae.FACEBOOK,
    "transformers_mae": mae.TRANSFORMERS,
    "deit": deit.HARD,
    "beit": beit.PRETRAINING,
    "vision_transformer": google.VISION_TRANSFORMER,
    "big_vision": google.BIG_VISION,
}
