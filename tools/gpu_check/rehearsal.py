"""Stands in for the device where there is none: the kernels run on this CPU, in tests/cuda_on_host.

    python rehearsal.py nvcc FLAGS... -o DRIVER
    python rehearsal.py compute-sanitizer --tool TOOL DRIVER CASES...

The first compiles a driver and puts the host's in its place, the second runs the host's build that has a
checker like the tool. `pretend_device` is for the tests and the benchmarks.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The host's build that finds what a tool finds, and how its reports begin.
_CHECKERS = {
    "memcheck": ("asan", "AddressSanitizer|runtime error"),
    "racecheck": ("race", "data race"),
    "initcheck": ("race", "uninitialized memory"),
    "synccheck": ("plain", "divergent barrier|deadlock|mismatched warp call|without its own lane"),
}


def pretend_device() -> None:
    """Gives this process a GPU that is the CPU, with the kernels of the host."""
    sys.path.insert(0, str(ROOT / "tests"))
    import pretend_cuda

    pretend_cuda.install()


def compiled(command: list[str]) -> int:
    status = subprocess.call(command)
    if status == 0:
        sys.path.insert(0, str(ROOT / "tests"))
        from cuda_on_host import build

        made = Path(command[command.index("-o") + 1])
        name = made.name.removeprefix("driver_")
        variants = {variant: build.driver_path(variant, name) for variant, _ in _CHECKERS.values()}
        build.build(*variants.values())
        for variant, program in variants.items():
            shutil.copy2(program, made if variant == "plain" else f"{made}.{variant}")
    return status


def watched(tool: str, driver: str, *cases: str) -> int:
    variant, reports = _CHECKERS[tool]
    program = driver if variant == "plain" else f"{driver}.{variant}"
    done = subprocess.run(
        [program, *cases], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    count = len(re.findall(reports, done.stdout))
    print(done.stdout)
    if tool == "racecheck":
        print(f"========= RACECHECK SUMMARY: {count} hazards displayed ({count} errors, 0 warnings)")
    else:
        print(f"========= ERROR SUMMARY: {count} error{'s' * (count != 1)}")
    return done.returncode


if __name__ == "__main__":
    _, program, *rest = sys.argv
    if program == "compute-sanitizer":
        _, *rest = rest  # --tool
        sys.exit(watched(*rest))
    sys.exit(compiled([program, *rest]))
