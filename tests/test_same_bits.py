"""The same study gives the same model to the last bit whatever the processor: emulated by what the libraries read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.store.settings import PROJECT

#: What makes each library take the kernels of another processor, or of another rule.
OTHER_PROCESSORS = [
    {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    {"MKL_CBWR": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    {"OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41", "NPY_DISABLE_CPU_FEATURES": "AVX512F"},
]
PROGRAM = """
import os, sys, hashlib, tasks.store.kernels
os.environ.update(pair.split("=") for pair in sys.argv[1:])
import numpy, torch
from tasks.study.sections import Training
from tasks.study.privacy import NoPrivacy
from tasks.learning.building import build_model
from tests.learning.binary_task import BINARY
from tasks.privacy.train_local import train_local

rng = numpy.random.default_rng(5)
inputs = torch.from_numpy(rng.normal(size=(120, 40)).astype(numpy.float32))
labels = torch.from_numpy((rng.random(120) < 0.4).astype(numpy.float32))
training = Training(optimizer="adam", lr=0.01, batch_size=32, local_epochs=5)
options = {"hidden": 64}
model = build_model("tasks.models:MLP", 40, options, seed=1)
none = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
update = train_local(BINARY, model, inputs, labels, training, none, seed=3)
print(hashlib.sha256(b"".join(update.tensors[name].numpy().tobytes() for name in sorted(update.tensors))).hexdigest())
"""


def model_digests(*variants: tuple[dict[str, str], dict[str, str]]) -> list[str]:
    """Of a model that is trained in a process of its own: with variables from outside, and with some set by hand."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *(f"{name}={value}" for name, value in inside.items())],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)} | outside,
            stdout=subprocess.PIPE,
            text=True,
        )
        for outside, inside in variants
    ]
    found = [run.communicate(timeout=300)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs)
    return found


def test_another_processor_makes_the_same_model() -> None:
    digests = model_digests(*((variables, {}) for variables in [{}, *OTHER_PROCESSORS]))
    assert len(digests) == 4
    assert set(digests) == {digests[0]}


@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="no second kind of kernels")
def test_without_our_choice_it_would_make_another() -> None:
    ours, kernels, rule = model_digests(({}, {}), ({}, {"ATEN_CPU_CAPABILITY": "avx2"}), ({}, {"MKL_CBWR": "AVX2"}))
    assert ours not in (kernels, rule)
