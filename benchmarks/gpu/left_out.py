"""A pytest plugin for a machine on which nothing can be installed.

A test module that imports a package which is not there is skipped, and named in the summary.
"""

import re
import sys
import types
import unittest

import pytest

try:
    import expecttest  # noqa: F401
except ImportError:
    # torch's own helpers for tests import it, torch.library.opcheck among them. Of what it can do, tests here
    # use nothing, and without a stand-in they would all be left out.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase, stand_in.ACCEPT = unittest.TestCase, False
    sys.modules["expecttest"] = stand_in

# Of this repository: one of these missing is an error, not a machine's want.
_OURS = ("crnn_ext", "reference", "networks", "random_network", "cuda_on_host")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr))
    if report.failed and missing and missing.group(1) not in _OURS:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: {missing.group(1)} is not installed")
    return report


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report, pytest.CollectReport):
            path, _, reason = report.longrepr
            reason = reason.removeprefix("Skipped: ")
            terminalreporter.write_line(f"left out: {report.nodeid or path} ({reason})")
