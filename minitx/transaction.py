"""Writes that replace several files of a folder together or not at all, and reads that get no mixture.

A `transaction` writes its files into a subfolder, `.minitx-save`. When all are on the disk, one rename
commits them, and each is moved to its name. A process that is killed before the commit leaves the old files;
after it, the next reader or writer completes the moves. The files to replace are removed first, so that
programs that know nothing of this find files missing rather than a mixture.

Writers exclude one another by a lock, which the system releases when a process dies. Readers wait while files
are moved, and lock nothing: `read_consistently` reads again if the folder has changed meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from minitx.io import naming
from minitx.shipped import check_not_shipped
from minitx.validation import warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

STAGING = ".minitx-save"
_FILES, _COMMITTED, _LOCK, _OWNER = "files", "committed", "lock", "owner"
_WAIT, _PATIENCE = 0.02, 5.0  # seconds: between two attempts at the lock, and before a warning
_LONGEST_MOVE = 10.0  # seconds that a reader waits for another process to move files
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_ATTEMPTS = 100  # reads of a folder that changes during each
_ENDINGS = (".safetensors", ".bin", ".json", ".jinja", ".model", ".spm", "vocab.txt", "merges.txt")

_IMPORTED = time.time_ns()
_without_locks: set[Path] = set()  # folders about which a warning was given


class _ChangesError(RuntimeError):
    """A folder changed during each of many reads."""


class StagedFiles:
    """The files of a transaction, not yet under their names.

    Attributes:
        folder: the folder that they will be in.
    """

    def __init__(self, folder: Path, staged: Path) -> None:
        self.folder = folder
        self._staged = staged

    def path(self, name: str) -> Path:
        """Returns the path to write the file `name` to; its folder is created if it does not exist.

        Raises:
            ValueError: a link in the folder leads the name out of it.
        """
        _check_inside(self.folder, name)
        path = self._staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_all(self, contents: Mapping[str, str | bytes]) -> None:
        """Writes files: name -> content, texts in UTF-8."""
        for name, content in contents.items():
            self.path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    def names(self) -> list[str]:
        """Returns the names of the files written so far."""
        return _names(self._staged)


@contextmanager
def transaction(folder: Path) -> Iterator[StagedFiles]:
    """Files that replace those of a folder together when the `with` block ends; after an error, none does.

    Args:
        folder: folder of the files; created if it does not exist.

    Raises:
        ArgumentValueError: a folder of the checkpoints that ship with minitx.
    """
    check_not_shipped(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in created:
            sync(path.parent)
        with naming(folder), _locked(folder):
            _complete(folder)
            staged = folder / STAGING / _FILES
            staged.mkdir()
            yield StagedFiles(folder, staged)
            _commit(folder, staged)
    except BaseException:
        with suppress(OSError):  # another writer uses one
            for path in created:
                path.rmdir()
        raise


def read_consistently(folder: Path, read: Callable[[], T], *further: Path) -> T:
    """Returns `read()`, called again if files of the folder were replaced meanwhile.

    With `lambda: (minitx.load(folder), minitx.load_tokenizer(folder))` both are those of one save.

    Args:
        folder: its files of a checkpoint are watched, others may change; a single file is read as it is.
        read: opens and reads files; files that stay open may be replaced afterwards.
        further: folders that are watched too.

    Raises:
        RuntimeError: the folder changed during each of many attempts.
    """
    if further:
        return read_consistently(folder, lambda: read_consistently(further[0], read, *further[1:]))
    if folder.is_file():
        return read()
    for _ in range(_ATTEMPTS):
        recover(folder)
        before = _signature(folder)
        if _is_committed(folder):
            continue
        try:
            result = read()
        except _ChangesError:  # of the same or of another folder
            raise
        except Exception:
            if not _is_committed(folder) and _signature(folder) == before:
                raise
        else:
            if not _is_committed(folder) and _signature(folder) == before:
                return result
    raise _ChangesError(f"{folder} changes all the time; another process writes to it.")


def recover(folder: Path) -> None:
    """Completes the moves of a process that was killed, or waits for those of one that runs.

    Raises:
        PermissionError: the folder has such files and cannot be written to.
    """
    end = time.monotonic() + _LONGEST_MOVE
    while _is_committed(folder):
        if _may_be_locked(folder) and time.monotonic() < end:
            time.sleep(_WAIT)
            continue
        try:
            with _locked(folder):
                _complete(folder)
        except OSError as error:
            if _is_committed(folder) and not (_may_be_locked(folder) and time.monotonic() < end):
                raise PermissionError(
                    f"{folder} holds an interrupted save, which cannot be completed ({error}); load it once "
                    "with write access."
                ) from None


# --- the files -------------------------------------------------------------------------------------


def _commit(folder: Path, staged: Path) -> None:
    """Commits the files and moves them to their names."""
    names = _names(staged)
    for name in names:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise IsADirectoryError(f"{folder / name} is a folder, where a file is to be written.")
        for parent in (folder / name).parents[: name.count("/")]:
            if os.path.lexists(parent) and not parent.is_dir():
                raise NotADirectoryError(f"{parent} is a file, where a folder is to be; remove it.")
    for name in names:
        sync(staged / name)
    for inner in _folders(staged):
        sync(inner)
    os.rename(staged, staged.with_name(_COMMITTED))
    sync(staged.parent)
    sync(folder)
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(folder / name)
    _complete(folder)


def _is_committed(folder: Path) -> bool:
    """Whether files of the folder are being moved to their names, or were when a process was killed.

    No save makes a link: in a folder of unknown origin, it would lead to files of the reader.
    """
    staging = folder / STAGING
    committed = staging / _COMMITTED
    return os.path.isdir(committed) and not (os.path.islink(committed) or os.path.islink(staging))


def _complete(folder: Path) -> None:
    """Moves committed files to their names and removes others; the caller has the lock."""
    staging = folder / STAGING
    committed = staging / _COMMITTED
    if _is_committed(folder):
        names = _names(committed)
        if link := next((path for path in committed.rglob("*") if path.is_symlink()), None):
            raise ValueError(f"{link} is a link, which no save makes; remove it.")
        for name in names:
            _check_inside(folder, name)
        for name in names:
            target = folder / name
            os.makedirs(target.parent, exist_ok=True)
            os.replace(committed / name, target)
        for inner in _folders(committed):
            sync(folder / inner.relative_to(committed))
        for inner in _folders(committed):
            os.rmdir(inner)
        sync(staging)
    shutil.rmtree(staging / _FILES, ignore_errors=True)


def _check_inside(folder: Path, name: str) -> None:
    """Checks that no link leads a file out of the folder, else raises ValueError."""
    target = (folder / name).parent
    if not target.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{target} leads out of {folder}, to {target.resolve()}; remove the link.")


def _names(folder: Path) -> list[str]:
    """Returns the files below a folder, by their names in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _folders(folder: Path) -> list[Path]:
    """Returns the folders below a folder, inner ones first, and the folder itself."""
    return [*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder]


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _signature(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns inode, time and size of the watched files of a folder; each replaced file changes it."""
    files = {}
    for entry in os.scandir(folder):
        with suppress(OSError):  # removed since, or a link to nothing
            if entry.name.endswith(_ENDINGS):
                status = os.stat(entry.path)
                files[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return files


# --- the lock --------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Excludes other writers of the folder; afterwards the subfolder is removed, unless a commit is in it."""
    staging = folder / STAGING
    descriptor = _acquire(staging / _LOCK)
    try:
        yield
    finally:
        try:
            if not _is_committed(folder):
                shutil.rmtree(staging / _FILES, ignore_errors=True)
                (staging / _LOCK).unlink(missing_ok=True)
        finally:
            os.close(descriptor)
            with suppress(OSError):  # there are locks, or another writer waits in the folder
                os.unlink(staging / _OWNER)
            with suppress(OSError):
                os.rmdir(staging)


def _acquire(path: Path) -> int:
    """Returns the descriptor of the locked file, when no other process has the lock."""
    if path.parent.is_symlink():
        raise FileExistsError(f"{path.parent} is a link, which no save makes; remove it.")
    if path.parent.exists() and not path.parent.is_dir():
        raise FileExistsError(f"{path.parent} is a file, which no save makes; remove it.")
    waiting_since, warned = time.monotonic(), False
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except FileNotFoundError:  # its folder was removed by the writer before
            continue
        try:
            if _try_lock(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _owner().encode())
                return descriptor
            owner_text = os.read(descriptor, 200).decode(errors="replace")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not warned and time.monotonic() - waiting_since > _PATIENCE:
            warn(f"waiting to write {path.parent.parent}: locked by {owner_text}")
            warned = True
        time.sleep(_WAIT)


def _try_lock(descriptor: int, path: Path) -> bool:
    """Locks a file unless another process has it; False too for a file that was removed meanwhile."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return _try_create(path.with_name(_OWNER), str(error.strerror))
    return _is_at(descriptor, path)


def _try_create(path: Path, reason: str) -> bool:
    """Creates the file that serves as a lock on file systems without locks, unless another process has it."""
    folder = path.parent.parent
    if folder not in _without_locks:
        _without_locks.add(folder)
        warn(
            f"{folder} is on a file system without locks ({reason}): a save that is killed on another "
            f"machine leaves {path}; remove it if others wait for it."
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_owner())
    except FileNotFoundError:  # its folder was removed by the writer before
        return False
    except FileExistsError:
        if not _is_alive(path):
            path.unlink(missing_ok=True)
        return False
    return True


def _owner() -> str:
    """Returns this process, as the content of a lock."""
    return json.dumps({"process": os.getpid(), "machine": socket.gethostname(), "imported": _IMPORTED})


def _is_alive(path: Path) -> bool:
    """Whether the process that created a file exists, or may exist, on another machine for example."""
    try:
        owner = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # removed just now, or being written
        return True
    if owner["machine"] != socket.gethostname() or os.name == "nt":  # os.kill would end it there
        return True
    if owner["process"] == os.getpid():  # a restarted container has the same numbers
        return bool(owner["imported"] == _IMPORTED)
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _may_be_locked(folder: Path) -> bool:
    """Whether a writer is at work in a folder, or may be where that cannot be found out."""
    try:
        descriptor = os.open(folder / STAGING / _LOCK, os.O_RDONLY | _NO_LINK)
    except OSError as error:
        return isinstance(error, PermissionError)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    finally:
        os.close(descriptor)
    owner = folder / STAGING / _OWNER
    return owner.exists() and _is_alive(owner)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of this name: the last writer may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
