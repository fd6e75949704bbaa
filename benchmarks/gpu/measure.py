"""One group of measurements, in a process of its own: a crash then costs no other group.

    python benchmarks/gpu/measure.py GROUP FILE [--dry-run]

Each row is appended to FILE as a line of JSON once it is known.
"""

import argparse
import importlib
import json

import torch
from clocks import Bench, CpuClock, CudaClock
from machine import NO_GPU
from rows import GROUPS, Row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("file")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    options = parser.parse_args()
    if options.dry_run:
        torch.set_num_threads(1)
        bench = Bench(CpuClock(), NO_GPU["L2 bytes"], seconds=0)
    else:
        bench = Bench(CudaClock(), torch.cuda.get_device_properties(0).L2_cache_size, seconds=0.4)

    def put(row: Row) -> None:
        print(json.dumps(row), flush=True)
        with open(options.file, "a") as file:
            file.write(json.dumps(row) + "\n")

    if options.group == GROUPS[0]:
        put(Row("copy", [], "torch") | {"GB/s": 1e-9 * bench.bandwidth})
    for row in importlib.import_module(options.group).rows(bench, tiny=options.dry_run):
        put(row)


if __name__ == "__main__":
    main()
