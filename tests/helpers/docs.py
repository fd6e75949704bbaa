"""Pages of the documentation and their examples."""

import re

from helpers.paths import ROOT


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
