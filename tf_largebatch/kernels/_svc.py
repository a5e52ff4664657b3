"""What the three SVM estimators share: checks of parameters and labels, and prediction."""

import numbers
import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tf_largebatch.kernels._functions import gamma_value
from tf_largebatch.kernels._tasks import Samples, Tasks, class_weights, upper_bounds


class BaseKernelSVC(ClassifierMixin, BaseEstimator):
    """Kernel SVMs whose decisions are sums over trained parts; private to the package."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags

    def decision_function(self, X):
        """The decisions: two classes (n_samples,), above 0 for the second; else (n_samples,
        n_classes), the largest for the predicted one.

        Args:
            X: (n_samples, n_features), dense or CSR; with a precomputed kernel the values with all
                training samples, (n_samples, n_training_samples).
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return self._tasks.decide(self._decide(X))

    def predict(self, X):
        """The classes, (n_samples,); X as in `decision_function`."""
        decisions = self.decision_function(X)
        if decisions.ndim == 1:
            return self.classes_[(decisions > 0).astype(int)]
        return self.classes_[decisions.argmax(1)]

    def _start_fit(self, X, y):
        """Checked X, and the numbers of the classes; sets classes_ and _tasks."""
        self._check_parameters()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        if self.kernel == "precomputed" and X.shape[0] != X.shape[1]:
            raise ValueError(
                "Precomputed matrix must be a square matrix. Input is a "
                f"{X.shape[0]}x{X.shape[1]} matrix."
            )
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._set_tasks(y)
        return X, codes

    def _set_tasks(self, y):
        """`_tasks` and `class_weight_` of the classes."""
        if len(self.classes_) < 2:
            raise ValueError(
                f"The number of classes has to be greater than one; got {len(self.classes_)} class"
            )
        self._tasks = Tasks.make(len(self.classes_), self.multi_class)
        self.class_weight_ = class_weights(self.class_weight, self.classes_, y)

    def _samples(self, X, codes):
        """`Samples` of checked X, with the kernel that is set."""
        signs = self._tasks.signs(codes)
        bounds = upper_bounds(codes, signs, self.C, self.class_weight_)
        if X.dtype == np.float32 and bounds.max(initial=0) > np.finfo(np.float32).max:
            raise ValueError(
                f"C, times a class's weight, is no float32 number. Received: C={self.C!r}. Give "
                "float64 samples, or a smaller C."
            )
        is_pairwise = len(self.classes_) > 2 and self.multi_class == "ovo"
        return Samples(X, signs, bounds, self._kernel(), is_pairwise)

    def _set_model(self, node, samples):
        """The attributes of a single model, as `sklearn.svm.SVC` names them."""
        self.models_ = [node.expansion(samples)]
        self.support_ = self.models_[0].support
        self.support_vectors_ = self.models_[0].vectors
        self.dual_coef_ = self.models_[0].coef.T
        self.intercept_ = self.models_[0].intercept
        self.n_iter_ = node.n_iter

    def _decide(self, X):
        return self.models_[0].decide(X, self._kernel())

    def __getstate__(self):
        # Devices belong to a process, not to what was learned in it.
        state = super().__getstate__()
        return {**state, "strategy": None} if "strategy" in state else state

    def _set_gamma(self, X):
        self.gamma_ = 0.0 if self.kernel == "precomputed" else gamma_value(self.gamma, X)

    def _kernel(self):
        """The keyword arguments of `gram`."""
        return {
            "kernel": self.kernel,
            "gamma": self.gamma_,
            "degree": self.degree,
            "coef0": self.coef0,
        }

    def _check_parameters(self):
        self._check_number("C", low=0, open_end=True)
        self._check_number("tol", low=0, open_end=True)
        self._check_number("max_iter", low=-1, whole=True)
        self._check_number("degree", low=0, whole=True)
        self._check_number("coef0")
        if getattr(self, "memory_limit_bytes", None) is not None:
            self._check_number("memory_limit_bytes", low=0, whole=True)
        if hasattr(self, "batch_bytes"):
            self._check_number("batch_bytes", low=0, whole=True)
        self._check_choice("multi_class", ("ovr", "ovo"))

    def _check_number(self, name, *, low=-np.inf, open_end=False, whole=False):
        value, kind = getattr(self, name), numbers.Integral if whole else numbers.Real
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        is_inside = is_number and (value > low if open_end else value >= low)
        if not is_inside or not -np.inf < value < np.inf:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must be "
                f"{'an int' if whole else 'a float'} in the range "
                f"{'(' if open_end or low == -np.inf else '['}{low}, inf). Got {value!r} instead."
            )

    def _check_choice(self, name, choices):
        if getattr(self, name) not in choices:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must be one of {list(choices)}. "
                f"Got {getattr(self, name)!r} instead."
            )

    def _warn_of_gaps(self, nodes):
        """ConvergenceWarning if SMO ended before f_low <= f_high + 2 tol."""
        worst = max((float(np.max(node.gap)) for node in nodes), default=0.0)
        if worst > 2 * self.tol * (1 + 1e-6):
            iterations = max(int(np.max(node.n_iter)) for node in nodes)
            at_limit = iterations >= self.max_iter >= 0
            mend = "Increase max_iter or tol" if at_limit else "Give float64 samples, increase tol"
            warnings.warn(
                f"SMO ended after {iterations} iterations with f_low - f_high = {worst:.3g}, above "
                f"2 tol = {2 * self.tol:.3g}. {mend}, or scale the data.",
                ConvergenceWarning,
                stacklevel=3,
            )
