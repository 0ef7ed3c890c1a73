"""Where upstream has the files, at a fixed commit, and what is known of their content."""

import fnmatch
import hashlib
import os
import pathlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import requests

from dsmath.data.benchmarks.catalog import find_benchmark
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

MAX_TRIES = 4  # of a file whose connection breaks
_PAUSE_SECONDS = 1.0  # doubled each time
_TIMEOUT_SECONDS = 60

_RAW = "https://raw.githubusercontent.com"
_DEEPSEEK = f"{_RAW}/deepseek-ai/DeepSeek-Math/21cc5c6701a708a11cee0af8b1fe884e3294dc7a/evaluation/datasets"
_GSM8K = f"{_RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"
_HUMANEVAL = f"{_RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data"
_MBPP = f"{_RAW}/google-research/google-research/1fa17414f56c3703d5adb3818338b6e35e0fd550/mbpp"
_BBH = f"{_RAW}/suzgunmirac/BIG-Bench-Hard/9ee07bd481feebf959a6b59d61ea57bdcf30964d/bbh"


class Origin(NamedTuple):
    """A file upstream.

    Attributes:
      url: its address, which names a commit.
      sha256: of its whole content; None where we have never had it whole.
    """

    url: str
    sha256: str | None = None


_BBH_TASKS = {
    "boolean_expressions": "ea6c754ec005e2d3f2d085d349a740f593b5764f32ea4638ffed4cfc0061b12a",
    "causal_judgement": "6e8bca44dd402008ed41c07a3d0a1d5e7b03db7001a7e002fcdf4c60985ea081",
    "date_understanding": "0148d4ac5fca05b2f82373e5fef7208e15363b9c6079493034d77b3dab496bf5",
    "disambiguation_qa": "cf06df9ebf911b883671cb1b35d3fbd1a1c306b19b9e9a012407e596c85fe8c6",
    "dyck_languages": "3f9badedf15c2be1ce53d94fdf016299bb30ba231ef087ab9f51a7ed6d0bdc25",
    "formal_fallacies": None,
    "geometric_shapes": "07be68a124420caa2ebc0b2c858ad79fc55c5c8806170e496e1e17ebfb11f31c",
    "hyperbaton": None,
    "logical_deduction_five_objects": "d2df31394b903b7f0e085d42a69572a092987856eac076799017d70ef266fa8f",
    "logical_deduction_seven_objects": None,
    "logical_deduction_three_objects": None,
    "movie_recommendation": None,
    "multistep_arithmetic_two": None,
    "navigate": "b7944dfd3c81da5c4815bd75b00d6fa3c64140823498e78ed496f4c3d36f7f0d",
    "object_counting": "8acef14dbbdd40d2326ef7755750b6b5fe919fef06276af1bab3f1c297f022ff",
    "penguins_in_a_table": None,
    "reasoning_about_colored_objects": "0a8850cf95166020fce7a78244026ceedd7ea839302471512b4f8744e85a6a49",
    "ruin_names": "b6f723aef2bafdd4c7bfc3c7e0329c7e8a8279391a609969c8ed76c9319f5f7f",
    "salient_translation_error_detection": "becf3eb8dd53c821a555ecd5c1334ecd93eb25f980e63be963c518e7138de5da",
    "snarks": "54a0661fe2de06167645a4965e6bcf963c4ba307e76262a7c750998b0e3d0d0e",
    "sports_understanding": "63ca262858f6176864515cd8cf53cdaa40839ebecc155b726d77930855d167bf",
    "temporal_sequences": None,
    "tracking_shuffled_objects_five_objects": "2063a46a4fb484236ed4310523606543a3e1dd4a4dc34eda65d407910ece25a5",
    "tracking_shuffled_objects_seven_objects": None,
    "tracking_shuffled_objects_three_objects": "546cc7bf10c6a01a6a4c17ae28a4966485f21f29fd5d111f37858ec78e354f6b",
    "web_of_lies": "3e60323f8514a107fdb4edf35f8832a9171c5a09c0eaa47823559de905e8ab8b",
    "word_sorting": "2a6132d2c99f00d0d2eb1113ac6b4a918bd969d863c48749210d969713db8d43",
}

# By benchmark and by the file's name in its folder. MATH and MMLU are archives whose old addresses answer no more.
ORIGINS: Mapping[str, Mapping[str, Origin]] = {
    "gsm8k": {
        "test.jsonl": Origin(
            f"{_GSM8K}/test.jsonl", "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"
        ),
        "train.jsonl": Origin(
            f"{_GSM8K}/train.jsonl", "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"
        ),
    },
    "ocw": {"test.jsonl": Origin(f"{_DEEPSEEK}/ocw/test.jsonl")},
    "sat": {"test.jsonl": Origin(f"{_DEEPSEEK}/sat/test.jsonl")},
    "mmlu_stem": {"test.jsonl": Origin(f"{_DEEPSEEK}/mmlu_stem/test.jsonl")},
    "mgsm_zh": {"mgsm_zh.jsonl": Origin(f"{_DEEPSEEK}/mgsm_zh/mgsm_zh.jsonl")},
    "cmath": {"test.jsonl": Origin(f"{_DEEPSEEK}/cmath/test.jsonl")},
    "gaokao_mathcloze": {"gaokao-mathcloze.jsonl": Origin(f"{_DEEPSEEK}/agieval/gaokao-mathcloze.jsonl")},
    "gaokao_mathqa": {"gaokao-mathqa.jsonl": Origin(f"{_DEEPSEEK}/agieval/gaokao-mathqa.jsonl")},
    "minif2f": {
        "test.jsonl": Origin(f"{_DEEPSEEK}/minif2f/test.jsonl"),
        "validation.jsonl": Origin(
            f"{_DEEPSEEK}/minif2f/validation.jsonl", "6091dd4c4e64a514fb2cba3a99e86678f791e9f5cbd9810db619522e81603ed5"
        ),
    },
    "bbh": {f"{task}.json": Origin(f"{_BBH}/{task}.json", sha256) for task, sha256 in _BBH_TASKS.items()},
    "humaneval": {
        "HumanEval.jsonl.gz": Origin(
            f"{_HUMANEVAL}/HumanEval.jsonl.gz", "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
        )
    },
    "mbpp": {"mbpp.jsonl": Origin(f"{_MBPP}/mbpp.jsonl")},
}


def download(name: str, folder: str | os.PathLike, split: str = "test") -> list[pathlib.Path]:
    """Fetches what a split of a benchmark still lacks of upstream's files; files that are there stay as they are.

    Args:
      name: of the benchmark.
      folder: holds one folder a benchmark.
      split: of the benchmark.
    Returns:
      the files that were fetched.
    Raises:
      InputError: upstream has no lasting address, the file cannot be fetched, or it is not what upstream had.
    """
    benchmark, here = find_benchmark(name), pathlib.Path(folder) / name
    if split not in benchmark.files:
        raise InputError(f"{name} has no split {split!r}; known are {', '.join(benchmark.files)}")
    wanted = {
        file: origin
        for file, origin in ORIGINS.get(name, {}).items()
        if any(fnmatch.fnmatch(file, pattern) for pattern in benchmark.files[split])
    }
    if not wanted:
        raise InputError(
            f"{here}: {benchmark.title} ({split}) has no lasting address of single files; put them there by hand, "
            f"see {benchmark.source}"
        )
    fetched = []
    for file, origin in wanted.items():
        if not (here / file).exists():
            write_atomically(here / file, fetch(origin))
            fetched.append(here / file)
    return fetched


def check_content(name: str, path: pathlib.Path) -> str:
    """What is known of a file's content: "upstream's", "not upstream's" (a subset, or changed) or "unknown"."""
    origin = ORIGINS.get(name, {}).get(path.name)
    if origin is None or origin.sha256 is None:
        return "unknown"
    return "upstream's" if hashlib.sha256(path.read_bytes()).hexdigest() == origin.sha256 else "not upstream's"


def fetch(origin: Origin) -> bytes:
    """The content of a file upstream; where the connection breaks, it is gone on with at the byte where it broke.

    Raises:
      InputError: the server refuses, cannot be reached, or sends what upstream did not have.
    """
    content = bytearray()
    for number in range(MAX_TRIES):
        try:
            _fetch_rest(origin.url, content)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if number == MAX_TRIES - 1:
                raise InputError(
                    f"{origin.url}: cannot be fetched ({error}); check the connection, or put the file there by hand"
                ) from error
            time.sleep(_PAUSE_SECONDS * 2**number)
    digest = hashlib.sha256(content).hexdigest()
    if origin.sha256 not in (None, digest):
        raise InputError(
            f"{origin.url}: its SHA-256 is {digest}, not {origin.sha256}; it was damaged or has changed; run again"
        )
    return bytes(content)


def _fetch_rest(url: str, content: bytearray) -> None:
    """Appends what the content lacks; begins anew where the server knows no ranges."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={len(content)}-"} if content else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code >= 500:
            raise requests.ConnectionError(f"status {response.status_code}")
        if response.status_code not in (200, 206):
            raise InputError(f"{url}: the server answers {response.status_code}; put the file there by hand")
        if response.status_code == 200:
            content.clear()
        for chunk in response.iter_content(1 << 16):
            content += chunk
