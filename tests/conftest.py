"""What all tests share: eight fake devices, and the real data where it is present."""

import gc
import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Callable

import filelock
import hypothesis
import pytest

# Before anything imports jax or daft.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["DO_NOT_TRACK"] = "true"
# Eight devices on two busy cores may wait for each other longer than the 40 seconds after which XLA aborts.
XLA_FLAGS = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
# Tests spend their time compiling, not computing: compile faster, in one piece, and each program once.
XLA_FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # 0.11 took the flag away
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"  # the older emitters: slower kernels in half of the time
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}"

ROOT = pathlib.Path(__file__).resolve().parents[1]

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# They trace as long as they compile: no stack for every operation, no look at all objects after every 700 new ones.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("FLAX_PROFILE", "false")  # nor names of modules
# A hundred processes of theirs import the project: they need not parse it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The same examples every time, and no limit on their time: a busy machine must not fail a test.
hypothesis.settings.register_profile(
    "dsmath",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("dsmath")
gc.freeze()
gc.set_threshold(200_000, 20, 20)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real benchmark files and web archives, which users of the project lack."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder.name} beside the project")
    return folder


@pytest.fixture(scope="module")  # no longer: while it runs nothing else in the process may run an event loop
def browser():
    """Chromium, by Playwright."""
    playwright_sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    # Five seconds, the default, are too few for a page with megabytes of Plotly beside two workers that compile.
    playwright_sync.expect.set_options(timeout=30_000)
    with playwright_sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def make_model_config():
    """(changes) -> the config of a tiny decoder: two layers, width 32, grouped heads."""
    from dsmath.model.config import ModelConfig

    fields = {
        "vocab_size": 64,
        "num_layers": 2,
        "width": 32,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "mlp_width": 48,
        "norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "kind": "none",
            "factor": 1.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_length": 8192,
        },
        "attention_bias": False,
        "tied": True,
        "dtype": "float32",
        "param_dtype": "float32",
        "remat": "none",
        "attention": "xla",
    }
    return lambda **changes: ModelConfig.create(fields | changes)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[pathlib.Path], None]], pathlib.Path]:
    """(name, make) -> a folder that `make` has filled; the first of xdist's workers to ask makes it for all."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
        folder = root / name
        with filelock.FileLock(root / f"{name}.lock"):
            if not folder.exists():
                part = tmp_path_factory.mktemp(name)
                make(part)
                part.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def checkpoint(make_once, make_model_config) -> pathlib.Path:
    """A workdir with a tokenizer and a model so flat that half characters and odd tokens are drawn too."""
    return make_once("tiny", lambda workdir: _save_flat_model(workdir, make_model_config))


def _save_flat_model(workdir: pathlib.Path, make_model_config: Callable) -> None:
    import jax
    import optax

    from dsmath.data.tokenizer import Tokenizer
    from dsmath.model.sharding import make_mesh
    from dsmath.model.transformer import Transformer
    from dsmath.train.checkpoint import Checkpointer
    from dsmath.train.state import create_state

    texts = [
        "Anna has 12 apples and gets 7 more. First 12+7=19. The answer is \\boxed{19}.",
        "小明有3盒苹果，每盒12个，一共有多少个？先算3*12=36。答案是\\boxed{36}。",
        "User: How many are there?\n\nAssistant: There are 4. The answer is \\boxed{4}.",
    ]
    Tokenizer.train(texts * 5, vocab_size=420).save(workdir)
    model = Transformer(make_model_config(vocab_size=448))  # with rows for more than the tokenizer has
    state = create_state(model, optax.identity(), make_mesh({"data": 1}, jax.devices()[:1]), seed=3)
    state.params["params"]["final_norm"]["scale"] *= 0.5
    with Checkpointer(workdir, model.config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(state, {}, loss=1.0)


@pytest.fixture(scope="session")
def solver(make_once, make_model_config) -> pathlib.Path:
    """A workdir with a tokenizer and a model that solves "How many?" in two or three steps, and guesses 1, 2 or 3."""
    return make_once("solver", lambda workdir: _save_solver(workdir, make_model_config))


def _save_solver(workdir: pathlib.Path, make_model_config: Callable) -> None:
    import random

    import jax
    import numpy as np
    import optax

    from dsmath.data.solutions import chat_prompt
    from dsmath.data.tokenizer import Tokenizer
    from dsmath.model.sharding import make_mesh
    from dsmath.model.transformer import Transformer
    from dsmath.train.checkpoint import Checkpointer
    from dsmath.train.state import create_state, make_train_step
    from dsmath.train.supervised import next_token_loss

    rng = random.Random(0)

    def text() -> str:
        number = rng.randint(1, 3)
        steps = [f"I see {number}.", f"So it is {number}."][: rng.randint(1, 2)]
        return f"{chat_prompt('How many?')} {' '.join(steps)} \\boxed{{{number}}}."

    tokenizer = Tokenizer.train([text() for _ in range(200)], vocab_size=330)
    encoded = [[tokenizer.bos_id, *tokenizer.encode(text()), tokenizer.eos_id] for _ in range(32)]
    rows = np.zeros((len(encoded), max(map(len, encoded))), np.int32)
    for row, tokens in zip(rows, encoded, strict=True):
        row[: len(tokens)] = tokens
    held = rows != 0
    batch = {
        "tokens": rows[:, :-1],
        "targets": rows[:, 1:],
        "positions": np.broadcast_to(np.arange(rows.shape[1] - 1, dtype=np.int32), rows[:, 1:].shape),
        "segment_ids": held[:, :-1].astype(np.int32),
        "loss_mask": held[:, 1:].astype(np.float32),
    }
    mesh, optimizer = make_mesh({"data": 1}, jax.devices()[:1]), optax.adam(2e-2)
    model = Transformer(make_model_config(vocab_size=tokenizer.vocab_size, tied=False))
    state = create_state(model, optimizer, mesh, seed=0)
    step = make_train_step(next_token_loss(model, 512), optimizer, mesh)
    for _ in range(60):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.5
    tokenizer.save(workdir)
    with Checkpointer(workdir, model.config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(state, {}, loss=1.0)
