"""`python -m cuda_compile`, in tests/: compiles and audits, and ends with an error if anything is wrong."""

import sys

from cuda_compile import build, machine_code

if missing := build.missing():
    sys.exit(f"the CUDA sources cannot be compiled here: {missing}")
if not build.build():
    sys.exit("a compiler refused a source: see above")

usages: dict[machine_code.Kernel, machine_code.Usage] = {}
failures = []
for source in build.CUDA_SOURCES:
    for architecture in build.ARCHITECTURES:
        log = build.machine_code(source, architecture, "ptxas").read_text()
        sass = build.machine_code(source, architecture, "sass").read_text()
        of_source, impossible = machine_code.audit(build.ptx(source).read_text(), log, sass)
        failures += [f"sm_{architecture}: {failure}" for failure in impossible]
        for kernel, usage in of_source.items():
            usages[kernel] = usages.get(kernel, machine_code.Usage()).joined(usage)
failures += machine_code.beyond_limits(usages)
for kernel, usage in sorted(usages.items()):
    print(f"{kernel.name} in {kernel.real}: {usage}")
if failures:
    sys.exit("\n".join(failures))
