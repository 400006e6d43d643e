# SPDX-License-Identifier: Apache-2.0
"""What is said and built where CUDA, its module or a GPU is missing, and a bundle that has moved.  Needs no GPU."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
TESTS = BIN.parent / "tests"


def run(*command, **options):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def host(tmp_path):
    """host(gpus, has_nvcc): the environment of a host with such GPUs, as find-cuda sees it."""
    def make(gpus="", has_nvcc=True):
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in ("bash", "env", "tr", "grep", "sort", "dirname", "readlink", "cat"):
            (tools / name).symlink_to(shutil.which(name))
        programs = {"nvidia-smi": f"printf '{gpus}'"} if gpus else {}
        if has_nvcc:
            programs["nvcc"] = "exit 0"
        for name, body in programs.items():
            (tools / name).write_text(f"#!/bin/sh\n{body}\n")
            (tools / name).chmod(0o755)
        return {"PATH": str(tools), "CUDA_PATH": str(tmp_path / "none")}
    return make


def find_cuda(environment, backend="cpu"):
    return run(ROOT / "deploy/find-cuda", backend, env=environment)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has a GPU")
def test_nothing_is_built_where_there_is_no_gpu(host):
    found = find_cuda(host())
    assert (found.returncode, found.stdout) == (0, "")
    assert found.stderr == "CUDA module: not built: no NVIDIA GPU or driver on this host\n"


@pytest.mark.parametrize("gpus,archs", [("9.0\\n", "90-real"), ("9.0\\n9.0\\n", "90-real"), ("10.0\\n8.0\\n", "80-real;100-real")])
def test_the_module_is_built_for_the_gpus_of_the_host(host, gpus, archs):
    found = find_cuda(host(gpus))
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"phx_cuda -DPHX_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES={archs}\n"
    assert found.stderr.startswith("CUDA module: built by ") and found.stderr.count("\n") == 1


@pytest.mark.parametrize("gpus,has_nvcc,words", [
    ("9.0\\n", False, ("nvcc was not found", "install the CUDA 13 toolkit")),
    ("7.5\\n", True, ("compute capability 7.5", "8.0 or newer")),
])
def test_what_is_missing_is_named(host, gpus, has_nvcc, words):
    environment = host(gpus, has_nvcc)
    found = find_cuda(environment)
    assert (found.returncode, found.stdout) == (0, "")
    assert found.stderr.count("\n") == 1 and words[0] in found.stderr
    refused = find_cuda(environment, "cuda")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert all(word in refused.stderr for word in (*words, "--backend cpu")) and refused.stderr.count("\n") == 1


def test_quickstart_refuses_before_it_builds(host):
    refused = run(ROOT / "deploy/quickstart", "--backend", "cuda", env=host("9.0\\n", has_nvcc=False))
    assert refused.returncode == 1
    assert refused.stderr.startswith("backend cuda: nvcc was not found: ") and refused.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """What `cmake --install` makes, moved to another folder."""
    folder = tmp_path_factory.mktemp("bundle")
    installed = run("cmake", "--install", BIN.parent, "--prefix", folder / "first")
    assert installed.returncode == 0, installed.stderr
    (folder / "first").rename(folder / "moved")
    return folder / "moved"


@pytest.fixture
def module(bundle):
    """module(source): phalanx_cuda.so of the bundle is that file, or is missing; afterwards what it was."""
    place, kept = bundle / "lib/phalanx/phalanx_cuda.so", bundle / "kept.so"
    if place.exists():
        place.rename(kept)

    def put(source=None):
        if source is not None:
            shutil.copy(source, place)

    yield put
    place.unlink(missing_ok=True)
    if kept.exists():
        kept.rename(place)


def up(bundle, folder):
    return run(bundle / "bin/phalanx", "up", ROOT / "deploy/demo/model", "--backend", "cuda", "--data", folder,
               "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


def test_the_bundle_has_the_module_when_it_was_built(bundle):
    assert (bundle / "lib/phalanx/phalanx_cuda.so").exists() == (BIN / "phalanx_cuda.so").exists()
    assert run(bundle / "bin/phalanx-rank", "--probe", "--backend", "cpu").returncode == 0


def test_a_missing_module_is_named_with_the_remedy(bundle, module, tmp_path):
    module()
    refused = up(bundle, tmp_path / "data")
    assert refused.returncode == 1
    for words in ("phalanx_cuda.so was not found", "install the package", "docs/gpu.md", "backend cpu"):
        assert words in refused.stderr


@pytest.mark.parametrize("kind,words", [("idle", "compute capability"), ("old", "of another build; install both again")])
def test_a_module_that_cannot_work_says_why(bundle, module, tmp_path, kind, words):
    module(TESTS / f"modules/phalanx_{kind}.so")
    refused = up(bundle, tmp_path / "data")
    assert refused.returncode == 1 and words in refused.stderr


def test_programs_find_the_module_where_the_bundle_was_moved(bundle, module):
    module(TESTS / "phalanx_cuda.so")
    found = run(bundle / "bin/phalanx-rank", "--probe", "--backend", "cuda")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("cuda sm_")
