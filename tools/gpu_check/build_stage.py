"""The build stage: the libraries for this GPU, and packages from `make gpu-wheels`."""

from pathlib import Path

from compile_times import step_seconds, wrap_compiler
from stages import ROOT, Outcome, Run, Stage

WHEELS = ROOT / "build" / "wheels"


def _steps_file(run: Run) -> Path:
    return run.work / "compiler.steps"


def compile_seconds(run: Run) -> list[float]:
    """Returns the CPU seconds of each compiler step, also of an earlier build that is still valid."""
    return step_seconds(_steps_file(run))


def build(stage: Stage) -> Outcome:
    """Builds in place, or outside the checkout in a rehearsal."""
    run = stage.run
    where = ["--inplace"]
    if run.rehearsal:
        where = ["--build-lib", run.work / "lib", "--build-temp", run.work / "objects"]
    nvcc = run.nvcc()
    result = stage.python(
        "setup.py",
        "--quiet",
        "build_ext",
        *where,
        CRNN_EXT_CUDA="1",
        TORCH_CUDA_ARCH_LIST=run.architecture,
        CXX=str(wrap_compiler("c++", _steps_file(run))),
        PYTORCH_NVCC=str(wrap_compiler(nvcc, _steps_file(run))),
    )
    if result.status != 0:
        return Outcome("failed", result.reason())
    return Outcome("ok", "; ".join([f"compute capability {run.architecture}", *_install_wheels(stage)]))


def _install_wheels(stage: Stage) -> list[str]:
    """Installs the wheels from `make gpu-wheels` for this run only, and describes the result."""
    wheels = sorted(WHEELS.glob("*.whl"))
    if not wheels:
        return []
    options = ["--quiet", "--no-index", "--no-deps", "--upgrade", "--target", stage.run.site]
    result = stage.python("-m", "pip", "install", *options, *wheels)
    names = ", ".join(wheel.name.split("-")[0] for wheel in wheels)
    return [f"carried: {names}" if result.status == 0 else f"cannot install {names}: {result.reason()}"]
