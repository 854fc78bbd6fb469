"""`autopilothq.disk` replaces files as a whole or not at all."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from autopilothq import disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_text("old")
    return folder / "x"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_has_its_old_content_until_the_disk_has_the_new_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def synced(descriptor: int) -> None:
        [unfinished] = set(path.parent.iterdir()) - {path}
        is_new = os.path.samestat(os.fstat(descriptor), unfinished.stat())
        seen.append((is_new, unfinished.name.startswith(".x."), unfinished.read_text(), path.read_text()))

    monkeypatch.setattr(os, "fsync", synced)
    with disk.rewriting(path, "w") as file:
        file.write("new")
    assert seen == [(True, True, "new", "old")]
    assert contents(path.parent) == {"x": "new"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_stays_if_it_cannot_be_rewritten(path: Path) -> None:
    def fail() -> None:
        with disk.rewriting(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert contents(path.parent) == {"x": "old"}


def test_a_new_file_has_the_old_ones_owner_and_mode_before_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, steps = path.with_name("new"), list[tuple[object, ...]]()
    new.write_text("new")
    path.chmod(0o640)
    monkeypatch.setattr(os, "chown", lambda name, *owner: steps.append((name, owner, path.read_text())))
    monkeypatch.setattr(disk, "sync", lambda folder: steps.append((folder, path.read_text())))
    disk.replace(str(new), str(path))
    owner = (path.stat().st_uid, path.stat().st_gid)
    assert steps == [(str(new), owner, "old"), (str(path.parent), "new")]
    assert (stat.S_IMODE(path.stat().st_mode), contents(path.parent)) == (0o640, {"x": "new"})


@pytest.mark.parametrize(
    ("mode", "group", "without"),
    [(0o640, 0o640, 0o600), (0o644, 0o644, 0o644), (0o604, 0o604, 0o600), (0o664, 0o664, 0o644), (0o700, 0o700, 0o700)],
)
def test_a_new_file_without_the_old_ones_group_lets_nobody_else_in(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, without: int
) -> None:
    """A user who cannot set the owner may still be able to set the group."""
    path.chmod(mode)
    for gives_group, expected in ((True, group), (False, without)):
        tried = list[tuple[str, int, int]]()

        def chown(name: str, owner: int, group: int, gives: bool = gives_group, tried: Any = tried) -> None:
            tried.append((name, owner, group))
            if owner != -1 or not gives:
                raise PermissionError

        new = path.with_name("new")
        new.write_text("new")
        monkeypatch.setattr(os, "chown", chown)
        old = path.stat()
        disk.replace(str(new), str(path))
        assert tried == [(str(new), old.st_uid, old.st_gid), (str(new), -1, old.st_gid)]
        assert stat.S_IMODE(path.stat().st_mode) == expected
        path.chmod(mode)
