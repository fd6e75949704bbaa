"""Finds phrases that plain technical English avoids: in documents, comments, docstrings and messages.

python tools/check_prose.py             # every tracked text file; exits with 1 if one has such a phrase
python tools/check_prose.py FILE ...
"""

import re
import subprocess
import sys
from pathlib import Path

SUFFIXES = {".cpp", ".cu", ".cuh", ".h", ".md", ".py", ".pyi", ".toml", ".yaml", ".yml"}

# A phrase, and what to do instead.
PHRASES = {
    r"\b(is|are|was|were|been) told\b": "name who reports what",
    r"\btells? (of|how far|what)\b": "use a verb such as report, print or show",
    r"\bwhat is (no|told)\b": "name the thing",
    r"\bis no (\w+ )?(file|number|image|text|terminal|tensor|list|folder|directory)\b": "write 'is not a'",
    r", and (it|its (shape|dtype|type)) is ": "write ', got ...'",
    r"\bbe left to\b": "say who does it",
    r"\bof which (there|none|one)\b": "start a new sentence",
    r"\b(of|to|for|by) whom\b": "start a new sentence",
    r"\bwho(so)?ever\b": "name the reader",
    r"\bthe like\b": "name the things",
    r"\bso that (no|not|none|nothing)\b": "state what happens",
    r"\bas of itself\b|\bof itself\b": "leave it out",
    r"\bthe one (of|that|which) .{0,30}\bthe other\b": "name both",
    r"^\s*(#|//|///|\*)?\s*Of (a|an|the|what|which|those)\b": "start with the subject",
}
PATTERN = re.compile("|".join(f"(?P<p{number}>{phrase})" for number, phrase in enumerate(PHRASES)))
ADVICE = list(PHRASES.values())


def findings(path: Path) -> list[str]:
    """`path:line: "phrase": advice` for each phrase in the file."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for match in PATTERN.finditer(line):
            advice = ADVICE[int(match.lastgroup[1:])]
            found.append(f'{path}:{number}: "{match[0].strip()}": {advice}')
    return found


def main(names: list[str]) -> int:
    tracked = names or subprocess.check_output(["git", "ls-files", "-z"], text=True).split("\0")
    paths = [Path(name) for name in tracked if Path(name).suffix in SUFFIXES and Path(name).is_file()]
    found = [
        finding for path in paths if path.resolve() != Path(__file__).resolve() for finding in findings(path)
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
