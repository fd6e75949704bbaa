"""Stand-ins for the GPU: the kernels run on the CPU, in tests/cuda_on_host.

    python rehearsal.py nvcc FLAGS... -o DRIVER
    python rehearsal.py compute-sanitizer --tool TOOL DRIVER CASES...

The first command compiles a driver and replaces it by its CPU builds. The second runs the CPU build whose
checks correspond to the tool. The tests and the benchmarks use `pretend_device`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# For each tool, the CPU build with similar checks, and the pattern of its reports.
_CHECKERS = {
    "memcheck": ("asan", "AddressSanitizer|runtime error"),
    "racecheck": ("race", "data race"),
    "initcheck": ("race", "uninitialized memory"),
    "synccheck": ("plain", "divergent barrier|deadlock|mismatched warp call|without its own lane"),
}


def pretend_device() -> None:
    """Installs the pretend GPU in this process."""
    sys.path.insert(0, str(ROOT / "tests"))
    import pretend_cuda

    pretend_cuda.install()


def compile_driver(command: list[str]) -> int:
    status = subprocess.call(command)
    if status == 0:
        sys.path.insert(0, str(ROOT / "tests"))
        from cuda_on_host import build

        output = Path(command[command.index("-o") + 1])
        name = output.name.removeprefix("driver_")
        variants = {variant: build.driver_path(variant, name) for variant, _ in _CHECKERS.values()}
        build.build(*variants.values())
        for variant, program in variants.items():
            shutil.copy2(program, output if variant == "plain" else f"{output}.{variant}")
    return status


def run_tool(tool: str, driver: str, *cases: str) -> int:
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
        sys.exit(run_tool(*rest))
    sys.exit(compile_driver([program, *rest]))
