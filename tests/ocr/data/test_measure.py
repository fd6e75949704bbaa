"""Image sizes of the lines of a source."""

from helpers.dataset_files import write_labels_dataset

from crnn_ext.ocr.data import DataIssue, measure_lines, open_lines


def test_measure_lines(tmp_path):
    write_labels_dataset(tmp_path, {f"{number}.png": f"label {number}" for number in range(6)})
    source = open_lines(tmp_path)
    (tmp_path / "3.png").write_text("no image")
    for workers in (1, 2):
        measured = measure_lines(source, workers=workers)
        assert [tuple(size)[:2] for size in measured if not isinstance(size, DataIssue)] == [
            *[(40, 20), (41, 20), (42, 20), (44, 20), (45, 20)],
        ]
        assert measured[3][:2] == ("3.png", "unreadable image")
