"""Audits the machine code of each kernel: registers, memory and unwanted instructions."""

import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

REGISTERS_PER_SM = 65536
STATIC_SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Usage:
    """The resources of a kernel, the maximum over several kernels, or a limit."""

    registers: int = 0
    local_bytes: int = 0  # local memory per thread, mostly spilled registers
    local_accesses: int = 0  # load and store instructions
    # float64 additions, multiplications and comparisons in the innermost loops of a float32 kernel: on most
    # GPUs each takes 32 to 64 times as long as in float32.
    double_in_loops: int = 0

    def maximum(self, other: "Usage") -> "Usage":
        return Usage(*(max(getattr(self, field.name), getattr(other, field.name)) for field in fields(Usage)))

    def exceeds(self, limit: "Usage") -> bool:
        return self.maximum(limit) != limit


class Kernel(NamedTuple):
    name: str
    real: str  # compute type: "float" or "double"


# The maximum over all instances of a template on all architectures. Registers are rounded up to multiples of
# 8, their allocation unit. A change that needs more raises the limit here. Alignment, beam search and greedy
# scores accumulate in double on purpose.
LIMITS = {
    Kernel("align::logits_kernel", "double"): Usage(64),
    Kernel("align::logits_kernel", "float"): Usage(40),
    Kernel("align::path_kernel", "double"): Usage(200),
    Kernel("align::path_kernel", "float"): Usage(160, double_in_loops=1280),
    Kernel("beam_search::search_kernel", "double"): Usage(128),
    Kernel("beam_search::search_kernel", "float"): Usage(128, double_in_loops=200),
    Kernel("beam_search::select_tokens_kernel", "double"): Usage(80, 16, 6),
    Kernel("beam_search::select_tokens_kernel", "float"): Usage(64),
    Kernel("ctc_loss::gradient_kernel", "double"): Usage(64, 24, 16),
    Kernel("ctc_loss::gradient_kernel", "float"): Usage(64),
    Kernel("ctc_loss::prepare_gradient_kernel", "double"): Usage(40),
    Kernel("ctc_loss::prepare_gradient_kernel", "float"): Usage(40),
    Kernel("forward_backward::emissions_kernel", "double"): Usage(64, 8, 2),
    # The exponents of emissions.
    Kernel("forward_backward::emissions_kernel", "float"): Usage(64, double_in_loops=6),
    Kernel("forward_backward::recursion_kernel", "double"): Usage(256, 560, 490),
    # Once a sample, where both directions meet.
    Kernel("forward_backward::recursion_kernel", "float"): Usage(256, 16, 8, double_in_loops=4),
    Kernel("forward_backward::reduction_kernel", "double"): Usage(40),
    Kernel("forward_backward::reduction_kernel", "float"): Usage(40, double_in_loops=20),
    Kernel("target_offsets_kernel", "float"): Usage(40),
    Kernel("greedy::argmax_kernel", "double"): Usage(64),
    Kernel("greedy::argmax_kernel", "float"): Usage(40, 8, 2),
    Kernel("greedy::collapse_kernel", "double"): Usage(48),
    Kernel("greedy::collapse_kernel", "float"): Usage(48, double_in_loops=32),
}


class PtxasReport(NamedTuple):
    """A kernel for one architecture."""

    mangled: str
    registers: int
    shared_bytes: int
    local_bytes: int


def parse_ptxas_log(log: str) -> Iterator[PtxasReport]:
    """Parses the output of `ptxas -v`."""
    for mangled, report in re.findall(
        r"Compiling entry function '(\w+)'(.*?)(?=Compiling|\Z)", log, re.DOTALL
    ):
        numbers = [
            int(found[1]) if (found := re.search(pattern, report)) else 0
            for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes stack frame")
        ]
        yield PtxasReport(mangled, *numbers)


def max_threads_per_block(ptx: str) -> dict[str, int]:
    """Maps mangled names to the maximum number of threads per block in the launch bounds."""
    entries = re.findall(r"\.entry (\w+)\(([^{]*)\{", ptx)
    bounds = {mangled: re.search(r"\.maxntid (\d+)", head) for mangled, head in entries}
    return {mangled: int(bound[1]) for mangled, bound in bounds.items() if bound}


class Instruction(NamedTuple):
    address: int
    operation: str  # opcode up to the first dot


class Code(NamedTuple):
    instructions: list[Instruction]
    loops: list[tuple[int, int]]  # addresses of the first instruction and of the backward branch

    def count(self, operations: set[str]) -> int:
        return sum(instruction.operation in operations for instruction in self.instructions)

    def count_in_innermost_loops(self, operations: set[str]) -> int:
        innermost = [
            (start, end)
            for start, end in self.loops
            if not any(
                (start, end) != other and start <= other[0] and other[1] <= end for other in self.loops
            )
        ]
        return sum(
            instruction.operation in operations
            and any(start <= instruction.address <= end for start, end in innermost)
            for instruction in self.instructions
        )


def parse_sass(sass: str) -> Iterator[tuple[str, Code]]:
    """Parses the output of nvdisasm into (mangled name, code) pairs."""
    for mangled, body in re.findall(r"^\.text\.(\w+):\n(.*?)(?=^//-----|\Z)", sass, re.DOTALL | re.MULTILINE):
        instructions, addresses, branches = [], {}, []
        labels: list[str] = []  # of the next instruction
        for line in body.splitlines():
            if label := re.match(r"(\.L_\w+):", line):
                labels.append(label[1])
            elif found := re.match(r"\s+/\*(\w+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", line):
                address = int(found[1], 16)
                addresses.update(dict.fromkeys(labels, address))
                labels = []
                instructions.append(Instruction(address, found[2]))
                if found[2] == "BRA" and (goal := re.search(r"`\((\.L_\w+)\)", line)):
                    branches.append((address, goal[1]))
        loops = [(addresses[goal], at) for at, goal in branches if addresses.get(goal, at) < at]
        yield mangled, Code(instructions, loops)


def demangle(mangled: list[str]) -> dict[str, Kernel]:
    command = ["c++filt", "--no-params", *mangled]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kernels = {}
    for name, demangled in zip(mangled, done.stdout.splitlines(), strict=True):
        qualified = re.sub(r"^void |<.*", "", demangled)
        real = "double" if "double" in demangled else "float"
        kernels[name] = Kernel(qualified.removeprefix("crnn::"), real)
    return kernels


LOCAL = {"LDL", "STL"}
DOUBLE = {"DADD", "DMUL", "DFMA", "DSETP", "DMNMX"}


def audit(ptx: str, log: str, sass: str) -> tuple[dict[Kernel, Usage], list[str]]:
    """Returns the usage of each kernel of a source for one GPU, and why kernels cannot be launched."""
    threads, code = max_threads_per_block(ptx), dict(parse_sass(sass))
    usages: dict[Kernel, Usage] = {}
    failures = []
    compiled = list(parse_ptxas_log(log))
    kernels = demangle([kernel.mangled for kernel in compiled])
    for mangled, registers, shared_bytes, local_bytes in compiled:
        kernel = kernels[mangled]
        if mangled not in threads:
            failures.append(f"{kernel.name} has no launch bounds")
        elif threads[mangled] * 8 * math.ceil(registers / 8) > REGISTERS_PER_SM:  # allocated in units of 8
            failures.append(f"{kernel.name}: {threads[mangled]} threads of {registers} registers")
        if shared_bytes > STATIC_SHARED_BYTES:
            failures.append(f"{kernel.name}: {shared_bytes} bytes of static shared memory")
        instructions = code[mangled]
        double = instructions.count_in_innermost_loops(DOUBLE) if kernel.real == "float" else 0
        usage = Usage(registers, local_bytes, instructions.count(LOCAL), double)
        usages[kernel] = usages.get(kernel, Usage()).maximum(usage)
    return usages, failures


def limit_violations(usages: dict[Kernel, Usage]) -> list[str]:
    failures = []
    for kernel, usage in sorted(usages.items()):
        limit = LIMITS.get(kernel)
        if limit is None:
            failures.append(f"{kernel} has no limit in kernel_usage.LIMITS; it uses {usage}")
        elif usage.exceeds(limit):
            failures.append(f"{kernel} uses {usage}, limit {limit}")
    failures += [f"{kernel} in kernel_usage.LIMITS does not exist" for kernel in LIMITS.keys() - usages]
    return failures
