"""A pytest plugin that selects the tests for the device `cuda` and records each result immediately.

    pytest -p pytest_cuda --cuda-results FILE

FILE gets a line of JSON for each test, and for each module that cannot be collected.
"""

import json
import os
import sys
import types
import unittest

import pytest
from helpers.devices import device_of

try:
    import expecttest  # noqa: F401
except ImportError:
    # torch.library.opcheck imports it but does not need its functions here.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase, stand_in.ACCEPT = unittest.TestCase, False
    sys.modules["expecttest"] = stand_in

# GPU-only behavior is tested first.
_FIRST = ("test_cuda", "test_training_cuda")


def pytest_addoption(parser):
    parser.addoption("--cuda-results", metavar="FILE", required=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    chosen = [item for item in items if device_of(item) == "cuda"]
    config.hook.pytest_deselected(items=[item for item in items if device_of(item) != "cuda"])
    chosen.sort(key=lambda item: item.path.stem not in _FIRST)
    # pytest-xdist gives each worker a contiguous part of the list, longer parts last. Distribute the first
    # tests over all workers.
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    items[:] = [item for first in reversed(range(workers)) for item in chosen[first::workers]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Ends the process after a test that breaks the CUDA context, in which all later tests would fail."""
    result = yield
    try:
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception as error:
        if hasattr(item.config, "workerinput"):
            os._exit(1)  # pytest-xdist starts a new worker
        item.session.shouldstop = f"the CUDA context is broken: {error}"
    return result


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist report to the main process
        config.pluginmanager.register(_Recorder(config.getoption("cuda_results")))


class _Recorder:
    def __init__(self, file):
        self._file = file

    def pytest_collectreport(self, report):
        if not report.passed:
            self._record(report, "not collected")

    def pytest_runtest_logreport(self, report):
        # Skips and failures may also come from setup and teardown.
        if report.when == "call" or not report.passed:
            self._record(report, report.outcome)

    def _record(self, report, outcome):
        why = "" if report.passed else _reason(report.longrepr)
        with open(self._file, "a") as file:
            file.write(json.dumps({"test": report.nodeid, "outcome": outcome, "why": why}) + "\n")


def _reason(longrepr):
    """Returns one line about a skip, an exception or a failed import."""
    if isinstance(longrepr, tuple):
        return longrepr[2].removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(longrepr)).strip().splitlines() or [""]
    return (lines[0] if crash else lines[-1].removeprefix("E ").strip())[:200]
