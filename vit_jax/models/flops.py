"""What one image costs: floating-point operations of a forward pass, a multiply-add being two."""

from vit_jax.models.resnet import StemOptions
from vit_jax.models.vit import ViTOptions


def forward(options: ViTOptions) -> int:
    """Operations of the matrix products and convolutions; what is elementwise is left out."""
    width, tokens = options.width, options.tokens
    patches = options.grid[0] * options.grid[1]
    channels = options.stem.out_channels if options.stem else options.channels
    patch = options.patch_size[0] * options.patch_size[1] * channels
    attention = tokens * tokens * width * (3 if options.position == "relative" else 2)
    block = tokens * (4 * width * width + 2 * width * options.mlp_dim) + attention
    total = patches * patch * width + options.depth * block
    if options.pool == "map":
        total += tokens * 2 * width * width + 2 * tokens * width  # keys and values of all tokens
        total += 2 * width * width + 2 * width * options.mlp_dim  # of the one probe
    if options.representation_size:
        total += width * options.representation_size
    total += options.feature_size * options.num_classes
    if options.stem:
        total += _stem(options.stem, options.image_size, options.channels)
    return 2 * total


def _stem(stem: StemOptions, image_size: tuple[int, int], channels: int) -> int:
    """Multiply-adds of the convolutions."""
    area = image_size[0] * image_size[1] // 4
    total = area * 49 * channels * stem.root_width
    area, channels = area // 4, stem.root_width
    for stage, depth in enumerate(stem.num_layers):
        features = stem.root_width * 2**stage
        for unit in range(depth):
            before = area
            if stage and not unit:
                area //= 4
            total += before * channels * features + area * 9 * features * features
            total += area * features * 4 * features
            if not unit:
                total += area * channels * 4 * features
            channels = 4 * features
    return total
