"""Run `python -m cuda_compile` in tests/ to compile and audit; failures give a nonzero exit status."""

import sys

from cuda_compile import build, kernel_usage

if missing := build.unavailable_reason():
    sys.exit(f"cannot compile the CUDA sources: {missing}")
if not build.build():
    sys.exit("compilation failed; see the messages above")

usages: dict[kernel_usage.Kernel, kernel_usage.Usage] = {}
failures = []
for source in build.CUDA_SOURCES:
    for architecture in build.ARCHITECTURES:
        log = build.artifact(source, architecture, "ptxas").read_text()
        sass = build.artifact(source, architecture, "sass").read_text()
        of_source, impossible = kernel_usage.audit(build.ptx(source).read_text(), log, sass)
        failures += [f"sm_{architecture}: {failure}" for failure in impossible]
        for kernel, usage in of_source.items():
            usages[kernel] = usages.get(kernel, kernel_usage.Usage()).maximum(usage)
failures += kernel_usage.limit_violations(usages)
for kernel, usage in sorted(usages.items()):
    print(f"{kernel.name} in {kernel.real}: {usage}")
if failures:
    sys.exit("\n".join(failures))
