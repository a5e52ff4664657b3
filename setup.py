"""What tf-largebatch installs: the package and its recipes; never models, tests or train.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent

# The one place for the project's address. Unset: the project has no public repository yet.
# Once it has one, write it here, and every other file goes on without it.
PROJECT_URL = ""


def version():
    """The package's `__version__`, read without importing it (that would need Keras)."""
    text = (HERE / "tf_largebatch" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def long_description():
    """README.md, which is also the page of the package."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# TensorFlow comes as several distributions that overwrite each other's files, so that it is an
# extra: choose one of cpu, gpu and tpu. On Keras' JAX backend the optimizers need none of them.
# It brings protobuf along, one of whose errors we catch.
EXTRAS = {
    "cpu": ["tensorflow-cpu>=2.21", "protobuf"],
    "gpu": ["tensorflow[and-cuda]>=2.21", "protobuf"],
    # TensorFlow's TPU line ends at tensorflow-tpu 2.19/2.20.
    "tpu": ["tensorflow-tpu>=2.19", "protobuf"],
    # tensorflow-datasets imports importlib_resources without asking for it, and brings requests.
    "data": ["tensorflow-datasets>=4.9", "importlib_resources", "requests"],
    # keras-hub pulls tensorflow-text, which pulls the full tensorflow: never together with [cpu].
    # There is none for Windows.
    "nlp": [
        "keras-hub>=0.32",
        "sacrebleu>=2.4",
        "tensorflow-text; platform_system != 'Windows'",
    ],
    "kernels": ["scikit-learn>=1.6", "scipy", "threadpoolctl"],
    "async": ["numba>=0.61", "llvmlite"],
    "plots": ["matplotlib>=3.10"],
}
EXTRAS["dev"] = [
    *EXTRAS["nlp"],
    *EXTRAS["kernels"],
    *EXTRAS["async"],
    *EXTRAS["plots"],
    "ipykernel",  # runs the notebooks in tests, through nbclient
    "jax",
    "markdown-it-py",
    "nbclient",
    "nbformat",
    "optax",
    "pdoc>=16",
    "pyright[nodejs]",  # with Node.js as a wheel: otherwise pyright downloads it when first run
    "pytest>=9",
    "pytest-randomly",
    "pytest-xdist",
    "ruff",
    "setuptools>=77",  # a test builds the wheel without build isolation
    "tensorboard",
    "tensorflow>=2.21",
]

setup(
    name="tf-largebatch",
    version=version(),
    description="Large-batch training for Keras 3: LARS, LAMB, N-LAMB and what goes with them",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    url=PROJECT_URL or None,
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["tf_largebatch", "tf_largebatch.*"]),
    package_data={"tf_largebatch.recipes": ["*.toml"]},
    install_requires=["keras>=3.15", "numpy", "absl-py"],
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
