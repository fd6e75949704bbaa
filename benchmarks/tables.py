"""Tables that the benchmarks print."""

from collections.abc import Iterable

_TEXT_WIDTH, _NUMBER_WIDTH = 24, 10


def print_table(title: str, rows: Iterable[dict[str, object]], digits: int = 3) -> list[dict[str, object]]:
    """Prints each row as soon as it is available, and returns all rows."""
    print(f"\n{title}")
    kept, widths = [], []
    for row in rows:
        if not kept:
            widths = [
                max(len(name), _TEXT_WIDTH if isinstance(cell, str) else _NUMBER_WIDTH)
                for name, cell in row.items()
            ]
            print(_line(row, widths))
        kept.append(row)
        cells = (f"{cell:.{digits}g}" if isinstance(cell, float) else str(cell) for cell in row.values())
        print(_line(cells, widths), flush=True)
    return kept


def _line(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
