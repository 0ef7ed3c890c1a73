"""Packaging of dsmath: what it needs at run time, and the extras for accelerators and development."""

import pathlib

import setuptools

_RUNTIME = [
    "absl-py",
    "array-record",
    "daft>=0.7",
    "docutils",
    "etils",
    "fasttext>=0.9.3",
    "fastwarc>=2.0",
    "filelock",
    "flax>=0.12",
    "grain>=0.2.18",
    "importlib-resources",  # tensorflow-datasets imports it without requiring it
    "jax>=0.10,<0.13",
    "jinja2",
    "kubeflow-trainer-api",  # JobSet's schema
    "latex2mathml",
    "markdown-it-py",
    "markupsafe",
    "math-verify",
    "matplotlib",
    "ml-collections>=1.1",
    "mpmath",
    "networkx",
    "numpy>=2.0",
    "obstore>=0.8",
    "optax",
    "orbax-checkpoint>=0.12",
    "pillow",
    "plotly",  # for its JavaScript
    "pyarrow",
    "pydantic",
    "pyyaml",
    "rensa",
    "requests",
    "resiliparse>=2.0",
    "safetensors>=0.8",
    "scipy",
    "sentencepiece>=0.2",
    "simple-slurm",
    "starlette",
    "sympy",
    "tensorboardX",
    "tensorflow-datasets>=4.9.9",
    "tensorstore",
    "tldextract",
    "tokenizers>=0.22",
    "tqdm",
    "uvicorn",
]

_EXTRAS = {
    "gpu": ["jax[cuda13]>=0.10,<0.13"],
    "tpu": ["jax[tpu]>=0.10,<0.13"],
    "ray": ["ray"],
    "gcs": ["gcsfs", "google-cloud-storage"],  # parents in gs://
    "s3": ["s3fs"],  # parents in s3://
    "isabelle": ["isabelle-client>=1.1"],  # miniF2F; Isabelle itself is no Python package
    "wandb": ["wandb"],  # metrics mirrored to Weights & Biases
    "dev": [
        "httpx",
        "hypothesis",
        "ipykernel",
        "isabelle-client>=1.1",
        "nbclient",
        "nbconvert",
        "nbformat",
        "playwright",
        "pytest",
        "pytest-xdist",
        "ray",
        "ruff",
        "tensorboard",
    ],
}

setuptools.setup(
    name="dsmath",
    version="0.1.0",
    description="An open reproduction of DeepSeekMath in JAX: from a web crawl to a reasoning model",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_namespace_packages(include=["dsmath*", "experiments*", "configs*"]),
    package_data={
        "dsmath.evaluation": ["*.jinja", "*.css", "*.js"],
        "dsmath.evaluation.isabelle": ["*.toml"],
        "dsmath.evaluation.prompts": ["examples/*.toml", "examples/bbh/*.toml"],
        "dsmath.rl": ["*.jinja", "*.css", "*.js"],
        "dsmath.view": ["*.jinja", "*.css", "*.js"],
        "dsmath.web.annotate": ["*.jinja", "*.css", "*.js"],
    },
    install_requires=_RUNTIME,
    extras_require=_EXTRAS,
)
