"""`pytest -p pretend_cuda.plugin` runs the tests for `cuda` on the pretend device."""

import pytest

import pretend_cuda

pretend_cuda.install()

# The tests that the device cannot run, by the end of their names. Those that need two GPUs skip themselves.
CANNOT = {
    "::test_cuda_library_loads_beside_any_torch": "its place is taken by the harness",
    "::test_compile_into_one_graph[cuda-inductor]": "Inductor writes kernels for a GPU, in Triton",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in CANNOT.items():
            if item.nodeid.endswith(name):
                item.add_marker(pytest.mark.skip(reason=f"not on the pretend device: {reason}"))
