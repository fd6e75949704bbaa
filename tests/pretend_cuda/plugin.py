"""`pytest -p pretend_cuda.plugin` runs the tests for `cuda` on the pretend device."""

import pytest

import pretend_cuda

pretend_cuda.install()

# Tests that the device cannot run, by a part of their node ids. Tests that need two GPUs skip themselves.
UNSUPPORTED = {
    "::test_cuda_library_loads_without_torch_cuda": "it has no CUDA library",
    "::test_ctc_loss_compile[cuda-inductor]": "it cannot run Triton kernels from Inductor",
    "::test_processes_share_a_gpu[cuda]": "child processes do not have it",
    "::test_models_copies_on_gpu_have_flat_weights[cuda]": "it has no cuDNN, which packs weights",
    "test_scratch_memory.py::": "it has no memory statistics",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in UNSUPPORTED.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=f"not on the pretend device: {reason}"))
