"""Run one group of benchmarks in a process of its own, so that a crash does not affect other groups.

    python tools/gpu_check/measure.py GROUP FILE [--rehearsal]

Appends each row to FILE as a line of JSON as soon as it is known.
"""

import argparse
import importlib
import json

import rehearsal
import torch
from rows import GROUP_SECONDS, Row, new_row
from timers import Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=GROUP_SECONDS)
    parser.add_argument("file")
    parser.add_argument("--rehearsal", action="store_true", help="tiny shapes on a pretend GPU")
    options = parser.parse_args()
    if options.rehearsal:
        rehearsal.pretend_device()
        torch.set_num_threads(1)
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    seconds, copy_elements = (0.0, 1 << 12) if options.rehearsal else (0.25, 1 << 28)
    bench = Bench(cache, seconds, copy_elements)

    def put(row: Row) -> None:
        print(json.dumps(row), flush=True)
        with open(options.file, "a") as file:
            file.write(json.dumps(row) + "\n")

    if options.group == next(iter(GROUP_SECONDS)):
        put(new_row("copy", [], "torch") | {"GB/s": 1e-9 * bench.bandwidth})
    for row in importlib.import_module(f"groups.{options.group}").rows(bench, tiny=options.rehearsal):
        put(row)


if __name__ == "__main__":
    main()
