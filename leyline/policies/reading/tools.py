"""What the tools of the harnesses in use do, by name: one table, which a user may extend."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from leyline.directives import JsonMapping

KINDS = ("shell", "view", "edit", "editor", "search", "test", "other")

_NAMES = {
    "shell": """
        bash execute_bash bash_tool bash_command run_bash run_bash_command shell local_shell shell_command
        run_shell_command terminal run_in_terminal run_terminal_cmd run_terminal_command execute_command run_command
        exec exec_command container.exec cmd powershell pwsh
    """,
    "view": """
        view read read_file cat open view_file open_file file_read readfile get_file get_file_content
        get_file_contents read_text_file notebookread read_notebook view_range read_many_files read_files
    """,
    "edit": """
        edit write multiedit multi_edit write_file edit_file create_file create insert str_replace apply_patch
        apply_diff patch write_to_file replace_in_file replace search_replace search_and_replace insert_content
        insert_edit_into_file replace_string_in_file multi_replace_string_in_file edit_block file_write file_edit
        append_file append_to_file notebookedit edit_notebook edit_notebook_file delete_file remove_file move_file
        rename_file reapply
    """,
    "editor": "str_replace_editor str_replace_based_edit_tool text_editor file_editor",
    "search": """
        grep glob ls find search search_file search_dir find_file search_files list_files list_dir list_directory
        grep_search file_search codebase_search search_file_content search_code rg ripgrep read_folder fetch webfetch
        web_fetch web_search websearch
    """,
    "test": "eval test run_test run_tests runtests execute_tests test_runner",
}

TOOLS: MutableMapping[str, str] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Kind by name, in lower case. A name is looked up whole, and then without what a tool server puts in front
(`mcp__files__read_file`, `functions.shell`).

shell: runs a command. view: shows a part of a file. edit: writes, moves or removes files. editor: does several of
these, by its `command` argument (`view`, `str_replace`, ...). search: shows what it finds. test: runs tests.
other: none of these, for a name that would else be taken for one of them.
"""

_VERSION = re.compile(r"_?20\d{6}$")  # text_editor_20250124
_PREFIX = re.compile(r"__|[./:]")
_VIEW_COMMANDS = frozenset({"view", "read", "open", "cat"})
_EDIT_COMMANDS = frozenset(
    {"create", "str_replace", "insert", "undo_edit", "write", "edit", "delete", "rename", "replace", "append"}
)
COMMAND_KEYS = ("command", "cmd", "script", "commands")


def known_tools(extra: Mapping[str, str] | None) -> Mapping[str, str]:
    """The table with names of the caller's own in front."""
    return TOOLS if not extra else ChainMap({name.lower(): kind for name, kind in extra.items()}, dict(TOOLS))


def kind_of(name: str, arguments: JsonMapping, tools: Mapping[str, str] = TOOLS) -> str:
    """`shell`, `view`, `edit`, `search`, `test` or `other`, from a call's name and arguments.

    A tool that the table does not know is a shell if its `command` is a text and it names no file; else `other`.
    """
    whole, last = _plain_names(name)
    kind = tools.get(whole)
    if kind is None:
        kind = tools.get(last)
    command = arguments.get("command")
    if kind == "editor" or (kind in (None, "edit") and command in _VIEW_COMMANDS | _EDIT_COMMANDS):
        return _editor(command, arguments)
    if kind is None:
        return "shell" if isinstance(command, str) and not _names_file(arguments) else "other"
    return kind


@lru_cache(maxsize=1024)
def _plain_names(name: str) -> tuple[str, str]:
    """A tool's name in lower case without its version, and its last part."""
    lower = _VERSION.sub("", name.lower())
    return lower, _PREFIX.split(lower)[-1]


def shell_command(arguments: JsonMapping) -> str:
    """The command of a shell tool as one text; empty where there is none, or where it is input for a running one.

    An argument vector is read as well: of `["bash", "-lc", "ls"]` the command is `ls`.
    """
    if str(arguments.get("is_input", "")).lower() == "true":
        return ""
    given = next((arguments[key] for key in COMMAND_KEYS if arguments.get(key)), None)
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        return ""
    if len(given) == 3 and re.fullmatch(r"(?:.*/)?(?:ba|z|da|k)?sh", given[0]) and re.fullmatch(r"-\w*c", given[1]):
        return str(given[2])
    return " ".join(word if re.fullmatch(r"[\w@%+=:,./-]+", word) else _quoted(word) for word in given)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _editor(command: Any, arguments: JsonMapping) -> str:
    if command in _VIEW_COMMANDS:
        return "view"
    if command in _EDIT_COMMANDS:
        return "edit"
    written = {"old_str", "new_str", "file_text", "insert_line", "old_string", "new_string"}
    return "edit" if written & arguments.keys() else "view" if "view_range" in arguments else "other"


def _names_file(arguments: JsonMapping) -> bool:
    return any(key in arguments for key in ("path", "file", "file_path", "filename"))
