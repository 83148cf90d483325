"""Workspaces: the jail, what is hidden or protected, bytes that come back as they were, and patches git takes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.directives import LeylineError
from leyline.harness.workspace import workspace as module
from leyline.harness.workspace.jail import resolve
from leyline.harness.workspace.patch import unified_patch
from leyline.harness.workspace.workspace import (
    DiskWorkspace,
    MemoryWorkspace,
    NoFileError,
    Workspace,
    WorkspaceError,
    printable,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "pkg").mkdir(parents=True)
    (root / "a.py").write_text("x = 1\ny = 2\n")
    (root / "pkg" / "b.py").write_text("z = 3\n")
    (root / "test_a.py").write_text("import a\n")
    (root / "secret.cfg").write_text("key\n")
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "private.txt").write_text("private\n")
    return path


def test_both_kinds_are_workspaces(source: Path) -> None:
    with DiskWorkspace(source) as disk:
        assert isinstance(disk, Workspace)
        assert isinstance(MemoryWorkspace({}), Workspace)


def test_a_disk_workspace_is_a_copy_and_goes_away(source: Path) -> None:
    with DiskWorkspace(source) as disk:
        assert disk.files() == ["a.py", "pkg/b.py", "secret.cfg", "test_a.py"]
        disk.write("a.py", "changed\n")
        assert disk.read("a.py") == "changed\n"
        assert disk.read("./pkg/../a.py") == "changed\n"
        root = disk.root
    assert not root.parent.exists()
    assert (source / "a.py").read_text() == "x = 1\ny = 2\n"
    disk.close()


def test_ignored_files_exist_but_are_not_seen_and_readonly_files_are_not_written(source: Path) -> None:
    with DiskWorkspace(source, ignore=["*.cfg"], readonly=["*test*.py"]) as disk:
        assert disk.files() == ["a.py", "pkg/b.py", "test_a.py"]
        assert (disk.root / "secret.cfg").exists()
        with pytest.raises(NoFileError, match=r"no file secret\.cfg"):
            disk.read("secret.cfg")
        for path in ("secret.cfg", "test_a.py", "pkg/test_new.py", "pkg/../test_a.py"):
            with pytest.raises(WorkspaceError, match="is read-only"):
                disk.write(path, "x")
        assert [path for path in disk.files() if disk.writable(path)] == ["a.py", "pkg/b.py"]
        assert not disk.writable("secret.cfg")
        assert not disk.writable("nowhere.py")
        assert not disk.writable("pkg")


def test_a_link_does_not_get_around_the_patterns(source: Path) -> None:
    with DiskWorkspace(source, ignore=["*.cfg"], readonly=["*test*.py"]) as disk:
        (disk.root / "open.txt").symlink_to("secret.cfg")
        (disk.root / "free.py").symlink_to("test_a.py")
        with pytest.raises(NoFileError):
            disk.read("open.txt")
        with pytest.raises(WorkspaceError, match="read-only"):
            disk.write("free.py", "x")
        assert not disk.writable("free.py")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc/passwd", "absolute path"),
        ("../outside/private.txt", "outside the workspace"),
        ("pkg/../../outside/private.txt", "outside the workspace"),
        ("..", "outside the workspace"),
        ("link.txt", "outside the workspace"),
        ("linked/private.txt", "outside the workspace"),
        ("", "no file"),
        ("a\0.py", "no file"),
        ("x" * 5000, "no file"),
        ("a.py/b", "no file"),
        ("loop", "no file"),
        (".", "is a folder"),
        ("pkg", "is a folder"),
        ("pipe", "not a regular file"),
        ("nowhere.py", "no file nowhere.py"),
    ],
)
def test_the_jail_refuses_with_words(source: Path, outside: Path, path: str, says: str) -> None:
    with DiskWorkspace(source) as disk:
        (disk.root / "link.txt").symlink_to(outside / "private.txt")
        (disk.root / "linked").symlink_to(outside)
        (disk.root / "loop").symlink_to("loop")
        os.mkfifo(disk.root / "pipe")
        with pytest.raises(WorkspaceError, match=says) as caught:
            disk.read(path)
        assert isinstance(caught.value, LeylineError)
        assert "\n" not in str(caught.value)
        assert not disk.writable(path)
        if says != "no file nowhere.py":
            with pytest.raises(WorkspaceError):
                disk.write(path, "x")
    assert (outside / "private.txt").read_text() == "private\n"


def test_a_folder_that_became_a_link_after_the_check_is_not_followed(
    source: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap of a time-of-check race: the path is resolved, then its folder is replaced by a link."""
    with DiskWorkspace(source) as disk:

        def resolve_then_swap(root: str, path: str) -> tuple[str, ...]:
            parts = resolve(root, path)
            if not (disk.root / "pkg").is_symlink():
                shutil.rmtree(disk.root / "pkg")
                (disk.root / "pkg").symlink_to(outside)
            return parts

        (disk.root / "pkg" / "private.txt").write_text("mine\n")
        monkeypatch.setattr("leyline.harness.workspace.jail.resolve", resolve_then_swap)
        with pytest.raises(WorkspaceError):
            disk.write("pkg/private.txt", "overwritten")
        with pytest.raises(WorkspaceError):
            disk.read("pkg/private.txt")
    assert (outside / "private.txt").read_text() == "private\n"


def test_links_that_leave_the_source_are_not_copied(source: Path, outside: Path) -> None:
    (source / "out.txt").symlink_to(outside / "private.txt")
    (source / "folder").symlink_to(outside)
    (source / "in.py").symlink_to("a.py")
    with DiskWorkspace(source) as disk:
        assert not (disk.root / "out.txt").is_symlink()
        assert not (disk.root / "folder").is_symlink()
        assert disk.read("in.py") == "x = 1\ny = 2\n"
        disk.write("in.py", "through\n")
        assert disk.read("a.py") == "through\n"
        assert (disk.root / "in.py").is_symlink()


def test_bytes_that_are_no_text_survive(source: Path) -> None:
    latin = b"caf\xe9 = 1\r\nb = 2\r\nlast"
    (source / "latin.py").write_bytes(latin)
    (source / "image.bin").write_bytes(b"\x89PNG\0\1\2")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    with DiskWorkspace(source) as disk:
        text = disk.read("latin.py")
        assert printable(text) == "caf\ufffd = 1\r\nb = 2\r\nlast"
        disk.write("latin.py", text.replace("b = 2", "b = 3"))
        assert (disk.root / "latin.py").read_bytes() == latin.replace(b"b = 2", b"b = 3")
        with pytest.raises(WorkspaceError, match=r"image\.bin is a binary file \(7 bytes\)"):
            disk.read("image.bin")
        disk.write("run.sh", "#!/bin/sh\necho\n")
        assert stat.S_IMODE((disk.root / "run.sh").stat().st_mode) == 0o755
        disk.write("new/deep.py", "n\n")
        assert disk.read("new/deep.py") == "n\n"
        assert sorted(path.name for path in disk.root.rglob(".*")) == []


def test_sizes_are_limited(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    (source / "long.txt").write_text("l" * 101)
    with DiskWorkspace(source) as disk:
        with pytest.raises(WorkspaceError, match=r"long\.txt is too large \(101 bytes, at most 100\)"):
            disk.read("long.txt")
        with pytest.raises(WorkspaceError, match="would be too large"):
            disk.write("a.py", "a" * 101)
        assert disk.read("a.py") == "x = 1\ny = 2\n"
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(WorkspaceError, match="too large to copy"):
        DiskWorkspace(source)


def test_a_missing_source_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"no folder .*; give the folder"):
        DiskWorkspace(tmp_path / "nowhere")


def test_files_of_a_mapping_keep_their_order() -> None:
    files = {"z.py": "1\n", "a.py": "2\n", "m/k.py": "3\n"}
    with DiskWorkspace.from_files(files) as disk:
        assert disk.files() == list(files)
        (disk.root / "b.py").write_text("4\n")
        (disk.root / "__pycache__").mkdir()
        (disk.root / "__pycache__" / "b.pyc").write_bytes(b"x")
        assert disk.files() == [*files, "b.py"]


def test_a_mapping_cannot_leave_the_root() -> None:
    with pytest.raises(WorkspaceError, match="outside"):
        DiskWorkspace.from_files({"../x.py": "1"})


def test_put_and_remove_clear_the_way_and_follow_no_link(tmp_path: Path) -> None:
    (tmp_path / "safe").write_text("safe")
    with DiskWorkspace.from_files({"a.py": "1\n", "t/x.py": "t\n"}, readonly=["/t/"], ignore=["h"]) as disk:
        assert [path for path in (*disk.start, "h", "t/new", "b.py") if disk.guarded(path)] == ["t/x.py", "h", "t/new"]
        (disk.root / "a.py").unlink()
        (disk.root / "a.py").mkdir()
        disk.put("a.py", b"2\n")
        (disk.root / "l").symlink_to(tmp_path)
        disk.put("l/safe", b"other")
        disk.link("m", "a.py")
        disk.remove("t")
        disk.remove("nowhere/x")
        assert {path: disk.read(path) for path in disk.files()} == {"a.py": "2\n", "l/safe": "other"}
        assert disk.read("m") == "2\n"
    assert (tmp_path / "safe").read_text() == "safe"


def test_close_removes_folders_that_were_locked() -> None:
    disk = DiskWorkspace.from_files({"a/b.py": "1\n"})
    (disk.root / "a").chmod(0)
    disk.close()
    assert not disk.root.exists()


def test_memory_workspace() -> None:
    memory = MemoryWorkspace({"b.py": "1\n", "t.py": "2\n"}, readonly=["t.py"])
    assert memory.files() == ["b.py", "t.py"]
    assert memory.writable("b.py")
    assert not memory.writable("t.py")
    assert not memory.writable("x.py")
    with pytest.raises(WorkspaceError, match=r"t\.py is read-only"):
        memory.write("t.py", "")
    with pytest.raises(NoFileError, match=r"^no file x\.py$"):
        memory.read("x.py")
    memory.write("b.py", "3\n")
    assert memory.diff() == "diff --git a/b.py b/b.py\n--- a/b.py\n+++ b/b.py\n@@ -1 +1 @@\n-1\n+3\n"


def test_diff_of_a_disk_workspace(source: Path) -> None:
    with DiskWorkspace(source, ignore=["*.cfg"]) as disk:
        assert disk.diff() == ""
        (disk.root / "a.py").write_text("x = 1\ny = 3\n")
        (disk.root / "pkg" / "b.py").unlink()
        (disk.root / "pkg" / "c.py").write_text("c\n")
        (disk.root / "secret.cfg").write_text("other\n")
        (disk.root / "made.bin").write_bytes(b"\0")
        assert disk.diff() == (
            "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n"
            "diff --git a/pkg/b.py b/pkg/b.py\ndeleted file mode 100644\n"
            "--- a/pkg/b.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-z = 3\n"
            "diff --git a/pkg/c.py b/pkg/c.py\nnew file mode 100644\n"
            "--- /dev/null\n+++ b/pkg/c.py\n@@ -0,0 +1 @@\n+c\n"
        )


names = st.sampled_from(["a.py", "dir/b c.txt", "é.txt", 'q"uote.txt', "tab\tname.txt"])
texts = st.text(st.sampled_from("ab\n\r\u2028é"), max_size=12)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(max_examples=25, deadline=None)
@given(before=st.dictionaries(names, texts, max_size=3), after=st.dictionaries(names, texts, max_size=3))
def test_git_applies_a_patch(before: dict[str, str], after: dict[str, str]) -> None:
    patch = unified_patch(before, after)
    with DiskWorkspace.from_files(before) as disk:
        subprocess.run(["git", "init", "-q"], cwd=disk.root, check=True)
        if patch:
            subprocess.run(
                ["git", "apply", "--whitespace=nowarn", "-"], cwd=disk.root, input=patch.encode(), check=True
            )
        assert {path: disk.read(path) for path in disk.files()} == after


LATIN = b"# -*- coding: latin-1 -*-\ns = 'caf\xe9'\nb = 2\n"


@pytest.mark.parametrize("change", ["edit", "make", "remove", "empty", "mend"])
def test_git_takes_the_patch_of_a_file_that_is_not_utf8(tmp_path: Path, change: str) -> None:
    """Beside an ordinary one; and the patch is a text that travels in JSON."""
    repository = tmp_path / "src"
    repository.mkdir()
    (repository / "a.py").write_text("x = 1\n")
    if change != "make":
        (repository / "l.py").write_bytes(LATIN)
    with DiskWorkspace(repository) as disk:
        disk.write("a.py", "x = 2\n")
        if change == "remove":
            (disk.root / "l.py").unlink()
        else:
            now = {"edit": LATIN * 40 + b"\xff", "make": LATIN, "empty": b"", "mend": b"s = 'caf'\n"}[change]
            (disk.root / "l.py").write_bytes(now)
        patch = disk.diff()
        assert patch.isascii()
        subprocess.run(["git", "apply", "-"], cwd=repository, input=patch.encode(), check=True, timeout=60)
        assert (repository / "a.py").read_text() == "x = 2\n"
        left = repository / "l.py"
        assert left.read_bytes() == now if change != "remove" else not left.exists()


def test_half_an_emoji_in_a_file_is_no_error() -> None:
    files = MemoryWorkspace({"a.py": "x"})
    files.write("a.py", "y \ud83d")
    assert files.diff().isascii()
