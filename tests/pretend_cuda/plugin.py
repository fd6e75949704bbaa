"""`pytest -p pretend_cuda.plugin` runs the tests for `cuda` on the pretend device."""

import pytest

import pretend_cuda

pretend_cuda.install()

# The tests that the device cannot run, by a part of their names. Those that need two GPUs skip themselves.
UNSUPPORTED = {
    "::test_cuda_library_loads_without_torch_cuda": "its place is taken by the harness",
    "::test_ctc_loss_compile[cuda-inductor]": "Inductor writes kernels for a GPU, in Triton",
    "::test_processes_share_a_gpu[cuda]": "it starts processes, which have no such device",
    "::test_models_copies_on_gpu_have_flat_weights[cuda]": "it has no cuDNN, which packs weights",
    "test_scratch_memory.py::": "it keeps no statistics of memory",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in UNSUPPORTED.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=f"not on the pretend device: {reason}"))
