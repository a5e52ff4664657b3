"""The fair study of batch sizes: one job over batch sizes, optimizers and seeds at a fixed length.

    python -m tf_largebatch.study --recipe lenet_digits --batch_sizes 16,512 \\
        --optimizers lamb,adamw,sgd --seeds 0,1,2 --out runs/study
"""

from tf_largebatch.study._command import main

__all__ = ["main"]
