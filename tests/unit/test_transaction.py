"""Files are replaced together or not at all: killed at every system call, by two writers, while read."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minitx.transaction
from minitx.transaction import STAGING, read_consistently, recover, transaction

FILES = ("config.json", "model.safetensors", "1_Pooling/config.json")
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.scandir")


def write(folder: Path, content: str) -> None:
    with transaction(folder) as files:
        files.write_all(dict.fromkeys(FILES, content))


def read(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in FILES}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def killed_at(number: int, function: Callable[[], None]) -> bool:
    """Runs a function in another process, which dies before its system call `number`; whether it died."""
    child = os.fork()
    if child == 0:  # pragma: no cover - ends in a kill
        calls = iter(range(number))

        def count(event: str, *_: object) -> None:
            if event in OPERATIONS and next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in ("fsync", "write", "close"):
            original = getattr(os, name)
            setattr(os, name, lambda *args, f=original: (count(OPERATIONS[0]), f(*args))[1])
        sys.addaudithook(count)
        try:
            function()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "model", "old")
    (tmp_path / "model" / "README.md").write_text("mine")
    return tmp_path / "model"


def test_files_appear_together(folder: Path) -> None:
    with transaction(folder) as files:
        files.write_all({"config.json": "new", "2_Dense/config.json": b"new"})
        assert files.names() == ["2_Dense/config.json", "config.json"]
        assert read(folder) == {"old"}
    assert (folder / "config.json").read_text() == (folder / "2_Dense/config.json").read_text() == "new"
    assert names(folder) == {*FILES, "2_Dense/config.json", "README.md"}
    assert not (folder / STAGING).exists()


def test_an_error_leaves_everything(folder: Path) -> None:
    with pytest.raises(TypeError), transaction(folder) as files:
        files.write_all({"config.json": "new", "other": "new", "third": 3})  # type: ignore[dict-item]
    assert read(folder) == {"old"}
    assert names(folder) == {*FILES, "README.md"}
    assert not (folder / STAGING).exists()


def test_a_folder_where_a_file_is_to_be(folder: Path) -> None:
    (folder / "other").mkdir()
    with pytest.raises(IsADirectoryError, match="other"), transaction(folder) as files:
        files.write_all({"config.json": "new", "other": "new"})
    assert read(folder) == {"old"}
    assert not (folder / STAGING).exists()


def test_links_that_lead_out_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "2_Dense").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out"), transaction(folder) as files:
        files.write_all({"config.json": "new", "2_Dense/config.json": "new"})
    assert read(folder) == {"old"}
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_link_is_replaced_by_the_file(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").unlink()
    (tmp_path / "elsewhere.json").write_text("elsewhere")
    (folder / "config.json").symlink_to(tmp_path / "elsewhere.json")
    write(folder, "new")
    assert (tmp_path / "elsewhere.json").read_text() == "elsewhere"
    assert read(folder) == {"new"}


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    """Readers find the old files or the new ones; the next writer leaves nothing else."""
    outcomes = []
    for number in range(1000):
        folder = tmp_path / str(number)
        write(folder, "old")
        if not killed_at(number, lambda folder=folder: write(folder, "new")):
            break
        content = read_consistently(folder, lambda folder=folder: read(folder))
        assert len(content) == 1, f"a mixture after call {number}"
        outcomes.append(content.pop())
        write(folder, "newer")
        assert read(folder) == {"newer"}
        assert names(folder) == set(FILES)
        assert not (folder / STAGING).exists()
    commit = outcomes.index("new")
    assert commit > 20
    assert len(outcomes) - commit > 15
    assert outcomes == ["old"] * commit + ["new"] * (len(outcomes) - commit)


def test_a_recovery_that_is_killed_too(tmp_path: Path) -> None:
    folder, number = tmp_path / "model", 0
    write(folder, "old")
    while True:  # until the first call after the commit
        killed_at(number, lambda: write(folder, "new"))
        if (folder / STAGING / "committed").exists():
            break
        number += 1
    for number in range(200):
        if not killed_at(number, lambda: recover(folder)):
            break
    assert number > 10
    assert read(folder) == {"new"}
    assert not (folder / STAGING).exists()


def test_programs_that_know_nothing_of_it_find_no_mixture(tmp_path: Path) -> None:
    for number in range(1000):
        folder = tmp_path / str(number)
        write(folder, "old")
        died = killed_at(number, lambda folder=folder: write(folder, "new"))
        assert len({(folder / name).read_text() for name in FILES if (folder / name).exists()}) <= 1
        if not died:
            return


def test_everything_is_on_the_disk_before_the_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the calls: no power failure leaves a commit without its files."""
    events: list[tuple[str, str]] = []

    def record(name: str, shown: Callable[..., str]) -> None:
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (events.append((name, shown(*args))), original(*args))[1])

    def relative(path: object) -> str:
        return os.path.relpath(str(path), folder)

    record("fsync", lambda descriptor: relative(os.readlink(f"/proc/self/fd/{descriptor}")))
    record("rename", lambda source, _: relative(source))
    record("replace", lambda _, target: relative(target))
    for name in ("unlink", "rmdir"):
        record(name, relative)
    write(folder, "new")
    commit = events.index(("rename", f"{STAGING}/files"))
    synced = [path for name, path in events[:commit] if name == "fsync"]
    staged = [f"{STAGING}/files/{name}" for name in sorted(FILES)]
    assert synced == [*staged, f"{STAGING}/files/1_Pooling", f"{STAGING}/files"]
    assert events[commit + 1 : commit + 3] == [("fsync", STAGING), ("fsync", ".")]
    last_move = max(i for i, (name, _) in enumerate(events) if name == "replace")
    moved = events[last_move + 1 :]
    assert moved.index(("fsync", ".")) < moved.index(("rmdir", f"{STAGING}/committed"))
    assert moved.index(("fsync", "1_Pooling")) < moved.index(("rmdir", f"{STAGING}/committed"))


def test_new_folders_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    original = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), original(file))
    )
    write(tmp_path / "new" / "model", "new")
    assert {str(tmp_path), str(tmp_path / "new")} <= {*synced}


@pytest.fixture
def process() -> Iterator[Callable[..., None]]:
    """Starts processes, and ends them after the test."""
    started = []

    def start(function: Callable[..., None], *args: object) -> None:
        child = multiprocessing.get_context("fork").Process(target=function, args=args, daemon=True)
        child.start()
        started.append(child)

    yield start
    for child in started:
        child.kill()
        child.join()


def write_again_and_again(folder: Path, content: str) -> None:
    for number in range(10**9):
        write(folder, f"{content}{number}")
        time.sleep(0.01)  # in which the other writer takes its turn


def test_two_writers_and_a_reader(folder: Path, process: Callable[..., None]) -> None:
    for content in ("a", "b"):
        process(write_again_and_again, folder, content)
    seen = []
    while len(seen) < 200 or not {"a", "b"} <= {content[0] for content in seen}:
        content = read_consistently(folder, lambda: read(folder))
        assert len(content) == 1
        seen += content


def test_a_writer_waits_for_another_and_says_so(
    folder: Path, process: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold() -> None:
        with transaction(folder) as files:
            (folder / "started").touch()
            time.sleep(1.0)
            files.write_all(dict.fromkeys(FILES, "first"))

    monkeypatch.setattr("minitx.transaction._PATIENCE", 0.1)
    process(hold)
    while not (folder / "started").exists():
        time.sleep(0.01)
    with pytest.warns(UserWarning, match=r"waiting to write .*model: locked by .*process"):
        write(folder, "second")
    assert read(folder) == {"second"}
    assert not (folder / STAGING).exists()


def test_a_folder_that_cannot_be_completed_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / STAGING / "committed").mkdir(parents=True)
    (folder / STAGING / "committed" / "config.json").write_text("new")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", denied)
        with pytest.raises(PermissionError, match="interrupted save, which cannot be completed"):
            recover(folder)
    recover(folder)
    assert (folder / "config.json").read_text() == "new"


def test_a_folder_that_never_rests(folder: Path) -> None:
    numbers = iter(range(10**6))

    def changing() -> None:
        (folder / "config.json").write_text(f"{next(numbers)} and more" * (1 + next(numbers) % 7))

    with pytest.raises(RuntimeError, match="changes all the time"):
        read_consistently(folder, changing)


def test_an_error_of_a_reader_is_raised_if_nothing_changed(folder: Path) -> None:
    attempts = []

    def fail() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            write(folder, "new")
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        read_consistently(folder, fail)
    assert len(attempts) == 2


def test_a_folder_of_unknown_origin_moves_no_files_of_the_reader(tmp_path: Path) -> None:
    """Its subfolder looks like an interrupted save, but is a link to files elsewhere, or has one."""
    private = tmp_path / "private"
    (private / "committed").mkdir(parents=True)
    (private / "committed" / "notes").write_text("mine")
    linked, inner = tmp_path / "linked", tmp_path / "inner"
    (inner / STAGING).mkdir(parents=True)
    linked.mkdir()
    (linked / STAGING).symlink_to(private)
    (inner / STAGING / "committed").symlink_to(private / "committed")
    for folder in (linked, inner):
        recover(folder)
    with (
        pytest.raises(FileExistsError, match=r"\.minitx-save is a link, which no save makes"),
        transaction(linked),
    ):
        pass
    assert (private / "committed" / "notes").read_text() == "mine"


def test_a_folder_of_unknown_origin_replaces_no_file_elsewhere(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings").write_text("mine")
    (folder / "models").symlink_to(elsewhere)
    (folder / STAGING / "committed" / "models").mkdir(parents=True)
    (folder / STAGING / "committed" / "models" / "settings").write_text("theirs")
    with pytest.raises(ValueError, match="models leads out of"):
        recover(folder)
    assert (elsewhere / "settings").read_text() == "mine"


def test_the_lock_is_no_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("mine")
    (folder / STAGING).mkdir()
    (folder / STAGING / "lock").symlink_to(tmp_path / "settings")
    with pytest.raises(OSError, match="lock"), transaction(folder):
        pass
    (folder / STAGING / "committed").mkdir(parents=True, exist_ok=True)
    (folder / STAGING / "lock").unlink(missing_ok=True)
    (folder / STAGING / "lock").symlink_to(tmp_path / "settings")
    with pytest.raises(PermissionError, match="interrupted save, which cannot be completed"):
        recover(folder)
    assert (tmp_path / "settings").read_text() == "mine"


def test_new_folders_are_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), transaction(tmp_path / "new" / "one"):
        raise OSError("full")
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_is_to_be(folder: Path) -> None:
    (folder / "2_Dense").write_text("mine")
    with pytest.raises(NotADirectoryError, match="2_Dense is a file"), transaction(folder) as files:
        files.write_all({"config.json": "new", "2_Dense/config.json": "new"})
    assert read(folder) == {"old"}
    assert not (folder / STAGING).exists()


def test_a_file_in_place_of_the_subfolder(folder: Path) -> None:
    (folder / STAGING).touch()
    with pytest.raises(FileExistsError, match=r"\.minitx-save is a file, which no save makes; remove it"):
        write(folder, "new")
    assert read(read_consistently(folder, lambda: folder)) == {"old"}


def test_a_link_among_committed_files_moves_none(folder: Path, tmp_path: Path) -> None:
    (folder / STAGING / "committed").mkdir(parents=True)
    (folder / STAGING / "committed" / "config.json").write_text("theirs")
    (folder / STAGING / "committed" / "models").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="models is a link, which no save makes"):
        recover(folder)
    assert read(folder) == {"old"}


def test_logs_do_not_disturb_a_reader(folder: Path) -> None:
    attempts = []

    def log() -> set[str]:
        attempts.append(1)
        (folder / "train.log").write_text("line\n" * len(attempts))
        (folder / f"events.{len(attempts)}").touch()
        return read(folder)

    assert read_consistently(folder, log) == {"old"}
    assert len(attempts) == 1


def test_a_file_of_the_same_size_written_in_place_is_noticed(folder: Path) -> None:
    os.utime(folder / "config.json", ns=(1, 1))
    attempts = []

    def rewrite() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            (folder / "config.json").write_text("new")

    read_consistently(folder, rewrite)
    assert len(attempts) == 2


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_commit_of_another_process_is_completed_before_the_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The files directly in the folder are as before."""
    attempts = []

    def commit() -> None:
        (folder / STAGING / "committed" / "1_Pooling").mkdir(parents=True)
        (folder / "1_Pooling" / "config.json").rename(folder / STAGING / "committed/1_Pooling/config.json")

    def take() -> set[str]:
        attempts.append(1)
        if moment == "during" and len(attempts) == 1:
            commit()
        return read(folder) if (folder / "1_Pooling" / "config.json").exists() else set()

    original, calls = minitx.transaction.recover, iter([commit] if moment == "before" else [])
    monkeypatch.setattr(minitx.transaction, "recover", lambda path: next(calls, lambda: original(path))())
    assert read_consistently(folder, take) == {"old"}
    assert len(attempts) == (1 if moment == "before" else 2)


def test_a_lock_that_was_removed_meanwhile_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not calls:
            (folder / STAGING / "lock").unlink()
        calls.append(operation)
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with transaction(folder):
        assert (folder / STAGING / "lock").exists()
    assert len(calls) == 2


def test_the_lock_is_released_whatever_happens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(folder, "new")
    monkeypatch.setattr("minitx.transaction._PATIENCE", 0.0)
    write(folder, "newer")  # does not wait
    assert read(folder) == {"newer"}
    assert not (folder / STAGING).exists()


def stopped_in_the_moves(folder: Path) -> int:
    """Returns a process that was stopped after its commit."""
    child = os.fork()
    if child == 0:  # pragma: no cover - is killed
        replace = os.replace
        os.replace = lambda *args: (replace(*args), os.kill(os.getpid(), signal.SIGSTOP))
        try:
            write(folder, "new")
        finally:
            os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    return child


def go_on(child: int) -> None:
    for _ in range(2 * len(FILES)):
        time.sleep(0.02)
        os.kill(child, signal.SIGCONT)


@pytest.mark.parametrize("locks", [True, False])
def test_a_reader_without_write_access_waits_for_a_writer_at_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, process: Callable[..., None], locks: bool
) -> None:
    if not locks:
        without_locks(monkeypatch)
    child = stopped_in_the_moves(folder)
    open_file = os.open

    def denied(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Read-only file system")
        return open_file(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr("minitx.transaction._LONGEST_MOVE", 0.1)
    with pytest.raises(PermissionError, match="interrupted save"):
        recover(folder)
    monkeypatch.setattr("minitx.transaction._LONGEST_MOVE", 10.0)
    process(go_on, child)
    assert read_consistently(folder, lambda: read(folder)) == {"new"}
    os.waitpid(child, 0)


# --- file systems without locks --------------------------------------------------------------------


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(minitx.transaction, "warn", lambda _: None)


def test_a_folder_without_locks_is_warned_about_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)
    messages: list[str] = []
    monkeypatch.setattr(minitx.transaction, "warn", messages.append)
    write(folder, "new")
    write(folder, "newer")
    assert read(folder) == {"newer"}
    assert not (folder / STAGING).exists()
    assert len(messages) == 1
    assert "is on a file system without locks (No locks available)" in messages[0]


def test_two_writers_and_a_reader_without_locks(
    folder: Path, process: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    test_two_writers_and_a_reader(folder, process)


def test_killed_at_every_system_call_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the file that replaces the lock does not exist any more."""
    without_locks(monkeypatch)
    for number in range(0, 1000, 3):
        folder = tmp_path / str(number)
        write(folder, "old")
        if not killed_at(number, lambda folder=folder: write(folder, "new")):
            break
        assert len(read_consistently(folder, lambda folder=folder: read(folder))) == 1
        owner = folder / STAGING / "owner"
        if owner.exists() and not owner.read_bytes():
            continue  # killed while it was written: the warning names it
        write(folder, "newer")
        assert names(folder) == set(FILES)
        assert not (folder / STAGING).exists()
    assert number > 30
