"""Times one library's SVC, in a process of its own: others' pools of threads would wait beside it.

    PYTHONPATH=. python -m benchmarks._kernel_peer scikit-learn make_classification 8000 1.0 0.09

Prints one line of JSON: the seconds of each fit after the first, and the accuracy in percent.
"""

import importlib
import json
import os
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks import _kernel_data
from tf_largebatch.kernels import make

# Other libraries' SVC: where it is.
PEERS = {
    "scikit-learn": "sklearn.svm",
    "scikit-learn-intelex": "sklearnex.svm",
    "thundersvm": "thundersvm",
}
METHODS = ("smo", "fcfs_svm", "ca_svm_average")  # ours
ROUNDS = 5


def contestant(name, C, gamma):
    """The unfitted SVC; an ImportError, OSError or AttributeError where it isn't installed."""
    if name in PEERS:
        return importlib.import_module(PEERS[name]).SVC(C=C, gamma=gamma)
    more = {} if name == "smo" else {"n_parts": 8, "random_state": 0}
    return make(name, C=C, gamma=gamma, **more)


def measure(name, data, C, gamma):
    """{"seconds", "accuracy"}, or {"missing"}: why it isn't there."""
    try:
        model = contestant(name, C, gamma)
    except (ImportError, OSError, AttributeError) as error:
        return {"missing": f"not installed ({type(error).__name__})"}
    seconds = []
    for _ in range(ROUNDS + 1):  # the first compiles
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(data.X, data.y)
        seconds.append(time.perf_counter() - began)
    accuracy = 100 * float(np.mean(model.predict(data.X_test) == data.y_test))
    return {"seconds": seconds[1:], "first": seconds[0], "accuracy": accuracy}


if __name__ == "__main__":
    chosen, data_name, n, *numbers = sys.argv[1:]
    made = _kernel_data.CLASSIFICATION[data_name](int(n), 0)
    print(json.dumps(measure(chosen, made, *map(float, numbers))))
