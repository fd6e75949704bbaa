"""`python -m pretend_cuda SCRIPT ...` runs a script or a folder with a __main__.py on the device."""

import runpy
import sys
from pathlib import Path

import pretend_cuda

if __name__ == "__main__":
    del sys.argv[0]
    if not sys.argv or not Path(sys.argv[0]).exists():
        sys.exit("usage: python -m pretend_cuda SCRIPT ...")
    script = Path(sys.argv[0])
    sys.path.insert(0, str(script if script.is_dir() else script.parent))
    pretend_cuda.install()
    runpy.run_path(str(script), run_name="__main__")
