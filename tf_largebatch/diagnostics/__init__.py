"""Instruments: what updates do to each variable, how noisy gradients are, how curved the loss."""

from tf_largebatch.diagnostics.curvature import LocalLipschitz, local_lipschitz
from tf_largebatch.diagnostics.density import Density, density
from tf_largebatch.diagnostics.layer_norms import LayerFigures, LayerNorms
from tf_largebatch.diagnostics.noise_scale import (
    NoiseEstimate,
    NoiseScale,
    gradient_noise_scale,
    require_parts,
)
from tf_largebatch.diagnostics.sharpness import sharpness
from tf_largebatch.diagnostics.summaries import plot_trust_ratios

__all__ = [
    "Density",
    "LayerFigures",
    "LayerNorms",
    "LocalLipschitz",
    "NoiseEstimate",
    "NoiseScale",
    "density",
    "gradient_noise_scale",
    "local_lipschitz",
    "plot_trust_ratios",
    "require_parts",
    "sharpness",
]
