"""How large a batch is worth it, and what it costs: `python -m tf_largebatch.plan --help`."""

from tf_largebatch.plan._command import main
from tf_largebatch.plan._prediction import Row

__all__ = ["Row", "main"]
