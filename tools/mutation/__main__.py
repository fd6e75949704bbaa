"""Plants each fault of faults.toml in a copy of the tree and checks that the tests named there find it.

    python tools/mutation --check      # only check that each text to replace occurs exactly once
    python tools/mutation [NAME ...]   # run these faults; default: all

The copy and its builds stay beside the work tree, in a folder of its name with "-mutation". Each fault gives
one line: result, name, seconds, failure. The exit status is 0 if every fault is found. Needs Python 3.11.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT.with_name(f"{ROOT.name}-mutation")
SAVED = COPY.with_name(f"{COPY.name}-saved")
# pytest without the operators on the host, with only those drivers built that test_driver[NAME-VARIANT] runs.
PYTEST = r"""
import re, sys, pytest
sys.path[:0] = ["tests"]
from cuda_on_host import build, operators
drivers = [build.driver_path(v, n) for n, v in re.findall(r"test_driver\[(\w+)-(\w+)]", str(sys.argv))]
build_targets = build.build
build.build = lambda *targets: build_targets(*(drivers or targets))
operators.unavailable_reason = lambda: "the operators are not built for each fault"
sys.exit(pytest.main(["-q", "-x", "-m", "", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def shell(command: str) -> None:
    """Runs a command in the work tree."""
    subprocess.run(command, shell=True, cwd=ROOT, check=True)


def python(*arguments: str) -> subprocess.CompletedProcess:
    """Runs Python in the copy, whose package comes before that of the work tree."""
    environment = {**os.environ, "PYTHONPATH": str(COPY), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_WAIT_POLICY": "passive", "CRNN_EXT_CUDA": "0"}
    command = ["timeout", "1800", sys.executable, *arguments]
    return subprocess.run(command, check=False, cwd=COPY, env=environment, capture_output=True, text=True)


def update_copy() -> None:
    """Brings the copy up to date; files keep their times, so that little is compiled, and that quickly."""
    COPY.mkdir(exist_ok=True)
    shell(f"find {COPY} -path {COPY}/build -prune -o -type f -not -name '*.so' -exec rm {{}} +")
    shell(f"git ls-files -z | xargs -0 cp --parents --preserve=timestamps,mode -t {COPY}")
    shell(f"sed -i 's/-O[23]/-O1/' {COPY}/setup.py {COPY}/tests/cuda_on_host/build.py")


def outcome(build: str, tests: list[str]) -> tuple[str, str]:
    """Builds and tests the copy: (result, failure)."""
    if build == "cpu" and (built := python("setup.py", "-q", "build_ext", "-i", "-f")).returncode:
        return "INVALID", built.stderr.strip()[-2000:]
    done = python("-c", PYTEST, *tests)
    if done.returncode == 0:
        return "MISSED", ""
    failed = re.search("^(FAILED|ERROR) .*", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not failed or re.search("ImportError|SyntaxError|the build of", done.stdout):
        return "INVALID", (done.stdout + done.stderr).strip()[-2000:]
    return "found", failed[0]


def run(fault: dict) -> bool:
    """Plants the fault in the copy, prints whether a test finds it, and restores the copy."""
    file, began = COPY / fault["file"], time.monotonic()
    text, times = file.read_text(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    if compiles := fault["build"] != "none":
        shell(f"rm -rf {SAVED} && mkdir {SAVED} && cp -a {COPY}/build {COPY}/crnn_ext/*.so {SAVED}")
    try:
        file.write_text(text.replace(fault["find"], fault["replace"]))
        result, failure = outcome(fault["build"], fault["tests"])
    finally:
        file.write_text(text)
        os.utime(file, ns=times)
        if compiles:
            shell(f"rm -rf {COPY}/build && mv {SAVED}/build {COPY} && mv {SAVED}/*.so {COPY}/crnn_ext")
    print(f"{result:8}{fault['name']:36}{time.monotonic() - began:4.0f} s  {failure}", flush=True)
    return result == "found"


def main() -> int:
    """Runs the command line; 0 if all is well."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    listed = tomllib.loads((ROOT / "tools/mutation/faults.toml").read_text())
    faults = {fault["name"]: fault for fault in listed["fault"]}
    for name, fault in faults.items():
        if (count := (ROOT / fault["file"]).read_text().count(fault["find"])) != 1:
            sys.exit(f"{name}: the text to replace occurs {count} times")
    if arguments.check:
        return 0
    update_copy()
    chosen = [faults[name] for name in arguments.names or faults]
    before = outcome("cpu", sorted({test for fault in chosen for test in fault["tests"]}))
    if before[0] != "MISSED":
        sys.exit(f"without any fault: {before[1]}")
    return 0 if all([run(fault) for fault in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
