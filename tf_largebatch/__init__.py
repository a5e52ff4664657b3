"""Large-batch training for Keras 3: layer-wise adaptive optimizers and what goes with them."""

from tf_largebatch import layers, scaling, schedules
from tf_largebatch.losses import SmoothedCrossEntropy
from tf_largebatch.optimizers import BIAS_AND_NORM, LAMB, LARS, NLAMB, NNLAMB, Exclusion

__version__ = "0.1.0"

__all__ = [
    "BIAS_AND_NORM",
    "LAMB",
    "LARS",
    "NLAMB",
    "NNLAMB",
    "Exclusion",
    "SmoothedCrossEntropy",
    "layers",
    "scaling",
    "schedules",
]
