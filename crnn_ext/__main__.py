"""`python -m crnn_ext`."""

import sys

from crnn_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
