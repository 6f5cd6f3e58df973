"""A folder of files that is replaced as a whole: a kill at any moment leaves the old files or the new, never a mixture.

A new state is written beside the folder, synced to disk, and swapped in by two renames under an exclusive lock. The
kernel drops the lock of a dead process, so whoever takes it next sees a finished swap, an unfinished one (and puts the
old folder back) or leftovers (and removes them). No older state stays behind, for it may hold what was withdrawn.

Beside a folder `DIR` may lie `.DIR.retract-lock` (stays), `.DIR.retract-next` and `.DIR.retract-previous` (passing).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from retract import __version__
from retract.errors import FolderError

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Parameters
    ----------
    system
        Name of the system that was trained.
    files
        SHA-256 of every file, by its path inside the folder.
    retract
        Version of retract that wrote it.
    format
        Version of the folder's layout.
    """

    system: str
    files: Mapping[str, str]
    retract: str = __version__
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """JSON that carries its own checksum."""
        fields = asdict(self)
        return json.dumps({**fields, "checksum": _digest_of(fields)}, indent=1, sort_keys=True).encode()


@contextmanager
def locked(folder: Path, purpose: Literal["read", "change", "create"]) -> Iterator[None]:
    """Hold the folder alone, after putting right what a killed process left. Not reentrant.

    Parameters
    ----------
    purpose
        To "read" goes on without a lock where the place is read-only, for nobody can swap a folder there. Only to
        "create" makes a lock where no trained folder is.

    Raises
    ------
    FolderError
        If there is no trained folder to read or change.
    """
    if purpose != "create" and not _beside(folder, "lock").exists() and not (folder / MANIFEST).exists():
        raise _no_folder(folder)
    descriptor = _open_lock(folder, reading=purpose == "read")
    if descriptor is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _put_right(folder)
        yield
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest.

    Raises
    ------
    FolderError
        If there is no trained folder, its layout has another version, or the manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise _no_folder(folder)
    fields = _manifest_fields(folder)
    if fields is None:
        raise FolderError(f"{path} is damaged, or not ours: it is not the JSON that retract writes; train elsewhere")
    if (found := fields["format"]) != FORMAT:
        raise FolderError(
            f"{folder} has folder format {found!r}, this retract {__version__} reads format {FORMAT}: "
            f"use the version that wrote it ({fields['retract']}) or train again"
        )
    written = fields.pop("checksum", None)
    if written != (actual := _digest_of(fields)):
        raise FolderError(
            f"{path} is damaged: its checksum is {actual[:12]}, {str(written)[:12]} was written; "
            "restore it or train again"
        )
    return Manifest(**fields)


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file's content, checked.

    Raises
    ------
    FolderError
        If the file is missing, or its SHA-256 is not the manifest's.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FolderError(f"{path} is missing from the trained folder; restore it or train again") from None
    if (actual := _sha256(content)) != manifest.files.get(name):
        expected = manifest.files.get(name, "none")
        raise FolderError(
            f"{path} is damaged: its SHA-256 is {actual[:12]}, the manifest has {expected[:12]}; "
            "restore it or train again"
        )
    return content


def require_replaceable(folder: Path, force: bool) -> None:
    """Refuse to write a new state where another one, or somebody's files, would be lost.

    Raises
    ------
    FolderError
        If the folder is a file, cannot be written, holds a trained system and `force` is not given, or holds anything
        else: that is never replaced.
    """
    ancestor = next(place for place in folder.resolve().parents if place.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise FolderError(f"{folder} cannot be made: {ancestor} is not a folder that you can write to")
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is a file: give a folder that does not exist yet")
    _require_not_inside(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if _manifest_fields(folder) is None:
        raise FolderError(
            f"{folder} holds files and is not a trained folder, so nothing in it is replaced: give another folder"
        )
    if not force:
        raise FolderError(
            f"{folder} holds a trained system: training anew would lose it and its pending requests; "
            "--force replaces it, or give another folder"
        )


def swap_in(folder: Path, system: str, files: Mapping[str, bytes], keep: Manifest | None = None) -> Manifest:
    """Replace the folder by a new state; call it under `locked`.

    Parameters
    ----------
    files
        The new content, by path inside the folder.
    keep
        The present manifest: its files that `files` does not name stay as they are. Without it none of ours does;
        what is not ours stays in any case.
    """
    _require_not_inside(folder)
    following = _beside(folder, "next")
    present = _manifest_fields(folder)
    ours = set() if present is None else set(present["files"])
    kept = {} if keep is None else {name: digest for name, digest in keep.files.items() if name not in files}
    manifest = Manifest(system, {**kept, **{name: _sha256(content) for name, content in files.items()}})
    try:
        following.mkdir()
        _link_all(folder, following, leave_out={MANIFEST, *files, *ours} - kept.keys())
        for name, content in {**files, MANIFEST: manifest.to_bytes()}.items():
            _write(following / name, content)
        _sync_folders(following)
        _swap(folder, following)
    finally:
        _put_right(folder)
    return manifest


def write_atomically(path: Path, content: bytes) -> None:
    """Write a single file so that at any moment it is the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's own mode shuts everyone else out
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _swap(folder: Path, following: Path) -> None:
    previous = _beside(folder, "previous")
    try:
        if folder.exists():
            os.rename(folder, previous)
        os.rename(following, folder)
    except OSError as error:
        reason = "it is a mount point" if error.errno == errno.EBUSY else error.strerror
        raise FolderError(f"{folder} cannot be replaced: {reason}; give a folder inside it") from error
    _sync(folder.parent)


def _put_right(folder: Path) -> None:
    """Undo a half-done swap, and remove what is left of a finished or an unfinished one."""
    if not os.access(folder.parent, os.W_OK):
        return
    previous, following = _beside(folder, "previous"), _beside(folder, "next")
    if previous.exists() and not folder.exists():
        os.rename(previous, folder)
        _sync(folder.parent)
    for leftover in (previous, following):
        if leftover.exists():
            shutil.rmtree(leftover)


def _manifest_fields(folder: Path) -> dict[str, Any] | None:
    """What the manifest says, unchecked and of any version; None where there is none or something else wrote it."""
    try:
        fields = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    ours = isinstance(fields, dict) and {"format", "retract"} <= fields.keys() and isinstance(fields.get("files"), dict)
    return fields if ours else None


def _open_lock(folder: Path, reading: bool) -> int | None:
    path = _beside(folder, "lock")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        if not reading:
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if os.access(path, os.R_OK) else None


def _no_folder(folder: Path) -> FolderError:
    what = f"is not a retract folder: it has no {MANIFEST}" if folder.exists() else "does not exist"
    return FolderError(f"{folder} {what}; `retract train` makes one")


def _require_not_inside(folder: Path) -> None:
    if Path.cwd().is_relative_to(folder.resolve()):
        raise FolderError(f"{folder} is, or holds, the current directory and would be replaced: run from outside it")


def _link_all(source: Path, target: Path, leave_out: set[str]) -> None:
    """Hard-link all files below `source`, or copy where links are not to be had."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if name in leave_out or (path.is_dir() and not path.is_symlink()):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target / name, follow_symlinks=False)
        except OSError:
            _write(target / name, path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(root: Path) -> None:
    for path, _, _ in os.walk(root):
        _sync(Path(path))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.retract-{what}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(fields: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(fields, sort_keys=True).encode())
