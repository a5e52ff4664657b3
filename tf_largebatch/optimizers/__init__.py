"""Layer-wise adaptive optimizers for Keras 3."""

from tf_largebatch.optimizers._layerwise import LayerwiseOptimizer
from tf_largebatch.optimizers.exclusions import BIAS_AND_NORM, Exclusion
from tf_largebatch.optimizers.lamb import LAMB
from tf_largebatch.optimizers.lars import LARS
from tf_largebatch.optimizers.nlamb import NLAMB, NNLAMB

__all__ = ["BIAS_AND_NORM", "Exclusion", "LAMB", "LARS", "LayerwiseOptimizer", "NLAMB", "NNLAMB"]
