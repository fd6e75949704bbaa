"""`pytest -p pretend_cuda.plugin` runs the tests for `cuda` on the pretend device."""

import pretend_cuda

pretend_cuda.install()
