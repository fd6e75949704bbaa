"""Hooks of the documentation site.

The page of the command line is made from the parsers of the commands. Pages load nothing from the network.
"""

import argparse
import re

from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from crnn_ext.cli import build_parser
from crnn_ext.commands.parser import CommandParser

MARK = "<!-- commands -->"
REMOTE_WORKER = "https://unpkg.com/iframe-worker/shim"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, CommandParser]:
    """The parsers of the commands by name."""
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def option_row(action: argparse.Action) -> str:
    """A row of the table of options."""
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    if action.option_strings and action.nargs != 0:
        value = action.metavar or "{" + ",".join(map(str, action.choices or [action.dest.upper()])) + "}"
        names += f" `{value}`"
    text = (action.help or "") % {**vars(action), "prog": "crnn-ext"}
    return f"| {names} | {text} |".replace("\n", " ")


def command_section(name: str, parser: CommandParser) -> str:
    """A command with its usage, description and options."""
    if parser.add_options is not None:
        parser.add_options(parser)
    usage = re.sub(r"^usage: ", "", parser.format_usage())
    rows = [
        option_row(action)
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction) and action.help is not argparse.SUPPRESS
    ]
    table = "\n".join(["| option | meaning |", "|---|---|", *rows])
    return f"## crnn-ext {name}\n\n{parser.description or ''}\n\n```text\n{usage}```\n\n{table}\n"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replaces the mark by a section for each command."""
    if MARK not in markdown:
        return markdown
    sections = (command_section(name, parser) for name, parser in subparsers(build_parser()).items())
    return markdown.replace(MARK, "\n".join(sections))


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Replaces the script that the theme loads from a CDN, for search without a server, by ours."""
    local = get_relative_url("assets/file_worker.js", page.url)
    return output.replace(REMOTE_WORKER, local)


def on_post_template(output_content: str, template_name: str, **_: object) -> str:
    """Does the same in pages of the theme, such as 404.html."""
    return output_content.replace(REMOTE_WORKER, "/assets/file_worker.js")
