"""Imports inside the package run downwards only."""

import ast

import pytest
from helpers.paths import ROOT

# From the bottom up. A module imports its own folder and the layers below it.
LAYERS = [
    {
        "crnn_ext._arguments",
        "crnn_ext._load",
        "crnn_ext._formatting",
        "crnn_ext._text",
        "crnn_ext.__version__",
    },
    {"crnn_ext.ops"},
    {"crnn_ext.text", "crnn_ext.models"},
    {"crnn_ext.ctc"},
    {"crnn_ext.ocr.system"},
    {"crnn_ext.ocr.images"},
    {"crnn_ext.ocr.checkpoints", "crnn_ext.ocr.data"},
    {"crnn_ext.ocr.reading"},
    {"crnn_ext.ocr.evaluation"},
    {"crnn_ext.ocr.training"},
    {"crnn_ext.ocr"},
    {"crnn_ext"},
    {"crnn_ext.commands"},
    {"crnn_ext.cli"},
    {"crnn_ext.__main__"},
]
MODULES = sorted((ROOT / "crnn_ext").rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_and_layer(module):
    """The longest name among the layers that the module belongs to, and the layer's number."""
    matches = [
        (name, number)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    return max(matches, key=lambda match: len(match[0]))


def imported_modules(path):
    """Absolute names of what a file of the package imports from the package, with those inside functions."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("crnn_ext"))
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.startswith("crnn_ext"):
                yield from (f"{source}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_downwards(path):
    folder, layer = folder_and_layer(module_name(path))
    upwards = [
        name
        for name in imported_modules(path)
        if folder_and_layer(name)[0] != folder and folder_and_layer(name)[1] >= layer
    ]
    assert upwards == []


def test_each_layer_exists():
    modules = {module_name(path) for path in MODULES} | {"crnn_ext._text", "crnn_ext.__version__"}
    assert {name for names in LAYERS for name in names} <= modules
