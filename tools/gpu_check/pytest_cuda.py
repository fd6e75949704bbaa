"""A pytest plugin that runs the tests that need a GPU, and notes each result as it comes.

    pytest -p pytest_cuda --cuda-results FILE

The others are deselected: they show the same on any machine. FILE gets a line of JSON for each test, and for
each module that cannot be collected.
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
    # torch's own helpers for tests import it, torch.library.opcheck among them. The tests use none of its
    # functions, and without a stand-in they would all be left out.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase, stand_in.ACCEPT = unittest.TestCase, False
    sys.modules["expecttest"] = stand_in

# What only a GPU can show comes before what every device has to.
_FIRST = ("test_cuda", "test_training_cuda")


def pytest_addoption(parser):
    parser.addoption("--cuda-results", metavar="FILE", required=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    chosen = [item for item in items if device_of(item) == "cuda"]
    config.hook.pytest_deselected(items=[item for item in items if device_of(item) != "cuda"])
    chosen.sort(key=lambda item: item.path.stem not in _FIRST)
    # pytest-xdist gives each worker one stretch of the list, the longer ones last. The first tests are dealt
    # out to all of them.
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    items[:] = [item for first in reversed(range(workers)) for item in chosen[first::workers]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Ends the process after a test that has broken the GPU's context: all later ones would fail with it."""
    result = yield
    try:
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception as error:
        if hasattr(item.config, "workerinput"):
            os._exit(1)  # pytest-xdist puts a new worker in its place
        item.session.shouldstop = f"the GPU's context is broken: {error}"
    return result


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # which pytest-xdist's workers have: they report to this process
        config.pluginmanager.register(_Notes(config.getoption("cuda_results")))


class _Notes:
    def __init__(self, file):
        self._file = file

    def pytest_collectreport(self, report):
        if not report.passed:
            self._note(report, "not collected")

    def pytest_runtest_logreport(self, report):
        # A skip may come before the call, and a fault before or behind it.
        if report.when == "call" or not report.passed:
            self._note(report, report.outcome)

    def _note(self, report, outcome):
        why = "" if report.passed else _reason(report.longrepr)
        with open(self._file, "a") as file:
            file.write(json.dumps({"test": report.nodeid, "outcome": outcome, "why": why}) + "\n")


def _reason(longrepr):
    """In one line: of a skip, of an exception, or of what could not be imported."""
    if isinstance(longrepr, tuple):
        return longrepr[2].removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(longrepr)).strip().splitlines() or [""]
    return (lines[0] if crash else lines[-1].removeprefix("E ").strip())[:200]
