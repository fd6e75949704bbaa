"""Compare an exported network in onnxruntime with the network in torch, on a CPU.

python benchmarks/bench_export.py [--threads N] [--json FILE]
"""

import argparse
import json
import tempfile
from pathlib import Path

import onnxruntime
import torch
from timing import environment, medians

from crnn_ext.ocr import Architecture, Checkpoint, Preprocessing
from crnn_ext.ocr.checkpoints.export import export_checkpoint
from crnn_ext.text import Charset

CHARSET = Charset("0123456789abcdefghijklmnopqrstuvwxyz")
SHAPES = ((1, 100), (1, 800), (16, 200))  # N, W


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, metavar="N", help="threads of both (default: torch's)")
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    report = environment() | {"onnxruntime": onnxruntime.__version__, "threads": threads, "results": []}
    print(", ".join(f"{name} {value}" for name, value in report.items() if name != "results"))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads

    print("network     N     W  torch, ms  onnxruntime, ms  torch / onnxruntime")
    for name in ("CRNN", "CRNN_v2", "CRNN_res"):
        torch.manual_seed(0)
        architecture = Architecture(name, CHARSET.num_classes)
        network = architecture.build().eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            # export_checkpoint also checks that the results agree.
            export_checkpoint(path, Checkpoint(network, architecture, CHARSET, Preprocessing()), "onnx")
            session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        for samples, columns in SHAPES:
            images, widths = torch.rand(samples, 1, 32, columns) * 2 - 1, torch.full((samples,), columns)
            inputs = {"images": images.numpy(), "widths": widths.numpy()}
            with torch.inference_mode():
                times = medians(
                    {
                        "torch": lambda images=images, widths=widths: network(images, widths),  # noqa: B023
                        "onnxruntime": lambda inputs=inputs: session.run(None, inputs),  # noqa: B023
                    }
                )
            result = {"network": name, "N": samples, "W": columns}
            result |= {f"{runtime}_ms": 1e3 * seconds for runtime, seconds in times.items()}
            report["results"].append(result)
            row = f"{name:8}{samples:5}{columns:6}{result['torch_ms']:11.2f}{result['onnxruntime_ms']:17.2f}"
            print(f"{row}{times['torch'] / times['onnxruntime']:21.2f}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
