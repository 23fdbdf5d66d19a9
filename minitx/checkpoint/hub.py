"""Hub ids to local folders, through the huggingface_hub client and its cache.

One request lists the files of a repository; then only those that minitx reads are downloaded, all of one
commit. The client handles HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, progress bars, retries and partial
downloads. (Its `snapshot_download` would list the repository again, and could not check an index before
gigabytes of shards are downloaded.)
"""

from __future__ import annotations

import errno
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from minitx.checkpoint.files import BIN, BIN_INDEX, GENERATION, INDEX, SINGLE, read_index, summarize
from minitx.checkpoint.gguf.header import SUFFIX, is_gguf
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG, ADAPTER_FILES
from minitx.checkpoint.sentence import MODULES, encoder_folder, encoder_place, sentence_names
from minitx.shipped import is_shipped_name, shipped_folder
from minitx.transaction import recover
from minitx.validation import (
    ArgumentValueError,
    check_flags,
    check_optional_strings,
    check_strings,
    check_type,
    warn,
)
from minitx.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

CONFIG = "config.json"

TOKENIZER = tuple(
    """
    tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt vocab.json
    merges.txt spiece.model spm.model sentencepiece.bpe.model tokenizer.model source.spm target.spm
    target_vocab.json chat_template.jinja chat_template.json
    """.split()  # noqa: SIM905 - words
)
TEMPLATES = "additional_chat_templates/"
LIST_TIMEOUT = 10.0  # seconds to wait for the list of files
BUSY, RETRIES, LONGEST_WAIT = (408, 429, 500, 502, 503, 504), 4, 60  # as the client does for files


def fetch(
    name_or_folder: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
) -> Path:
    """Returns the folder of a checkpoint or a LoRA adapter; downloads config and weights of a Hub id.

    Weights are downloaded in one format, safetensors before `.bin`.

    Args:
        name_or_folder: an existing folder or GGUF file, returned as it is, a name of `minitx.shipped`, or a
            Hub id.
        revision: branch, tag or commit.
        token: access token; None uses HF_TOKEN or the token of `hf auth login`.
        offline: use only files in the Hub cache; HF_HUB_OFFLINE=1 does the same.

    Returns:
        The folder or file, or the snapshot in the Hub cache.

    Raises:
        FileNotFoundError: neither a folder nor a repository, no such revision, no config.json or weights
            in it, or offline and not in the cache.
        PermissionError: a gated or private repository, or a token that the Hub refuses.
        ConnectionError: the Hub cannot be reached, or a download was cut off.
        ValueError: not the name of a folder or an id; an index that names a shard outside its folder.
    """
    files = (CONFIG, MODULES, ADAPTER_CONFIG)
    snapshot = find(name_or_folder, files, revision=revision, token=token, offline=offline)
    if isinstance(snapshot, Path):
        return encoder_folder(snapshot)
    modules = snapshot.get(MODULES).read_bytes() if MODULES in snapshot.present else None
    prefix = snapshot.prefix(modules)
    generation = [GENERATION] if prefix + GENERATION in snapshot.present else []
    weights = [prefix + file for file in (SINGLE, INDEX, BIN, BIN_INDEX) if prefix + file in snapshot.present]
    if has_adapter := prefix + ADAPTER_CONFIG in snapshot.present:
        adapter = [prefix + file for file in ADAPTER_FILES if prefix + file in snapshot.present]
        for name in [prefix + ADAPTER_CONFIG, *adapter[:1]]:
            snapshot.get(name)
    if has_adapter and not weights:
        for name in [prefix + file for file in generation] + sentence_names(snapshot.present, modules):
            snapshot.get(name)
        return snapshot.folder / prefix
    if not weights:
        present = summarize(sorted(snapshot.present)) or "nothing"
        raise FileNotFoundError(
            f"{snapshot.where} has no weights that minitx reads: expected {SINGLE}, {INDEX}, {BIN} or "
            f"{BIN_INDEX}; found {present}."
        )
    # Small files first: a bad index is refused before gigabytes are downloaded.
    small = [prefix + file for file in (CONFIG, *generation)]
    for extra in small + sentence_names(snapshot.present, modules):
        snapshot.get(extra)
    path = snapshot.get(weights[0])
    for shard in sorted(set(read_index(path).values())) if path.suffix == ".json" else ():
        snapshot.get(prefix + shard)
    return snapshot.folder / prefix


def fetch_tokenizer(
    name_or_folder: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
) -> Path:
    """Returns the folder of a tokenizer; downloads config.json and the tokenizer files of a Hub id.

    Args and errors as for `fetch`.
    """
    files = (CONFIG, *TOKENIZER, ADAPTER_CONFIG)
    snapshot = find(name_or_folder, (*files, MODULES), revision=revision, token=token, offline=offline)
    if isinstance(snapshot, Path):
        return encoder_folder(snapshot)
    modules = snapshot.get(MODULES).read_bytes() if MODULES in snapshot.present else None
    prefix = snapshot.prefix(modules)
    templates = (name for name in sorted(snapshot.present) if name.startswith(prefix + TEMPLATES))
    for name in (*(prefix + file for file in files), *templates):
        if name in snapshot.present:
            snapshot.get(name)
    return snapshot.folder / prefix


# --- one commit of a repository --------------------------------------------------------------------


@dataclass
class Snapshot:
    """One commit of a repository, on the Hub or in the cache.

    Attributes:
        repo: the Hub id.
        folder: folder of this commit in the Hub cache.
        present: names of its files.
        api: the client; None to use the cache only.
    """

    repo: str
    folder: Path
    present: set[str]
    api: HfApi | None

    @property
    def where(self) -> str:
        """Repository and commit, for error messages."""
        commit = self.folder.name[:12]
        return f"{self.repo} ({commit})" if self.api else f"{self.repo} ({commit}) in the Hub cache"

    def prefix(self, modules: bytes | None) -> str:
        """Returns the prefix of the names of the encoder's files, such as "0_Transformer/"; mostly ""."""
        place = encoder_place(modules)
        return f"{place}/" if {f"{place}/{name}" for name in (CONFIG, ADAPTER_CONFIG)} & self.present else ""

    def get(self, name: str) -> Path:
        """Returns the path of a file, downloaded if it is not in the cache.

        Raises:
            FileNotFoundError: the commit has no such file.
            PermissionError, ConnectionError: as in `fetch`.
        """
        if name in self.present and self.api is not None:
            return download(self.api, self.repo, name, self.folder.name)
        if name in self.present:
            return self.folder / name
        hint = "" if self.api else "; fetch it once online"
        raise FileNotFoundError(f"{self.where} has no file {name}{hint}.")


def find(
    name_or_folder: str | Path,
    files: tuple[str, ...],
    *,
    revision: str,
    token: str | None,
    offline: bool,
) -> Path | Snapshot:
    """Returns a folder, in which an interrupted save is completed, a GGUF file, or the snapshot of a Hub id.

    The repository has at least one of `files`. "minitx/..." is a folder of this package.
    """
    check_type("name_or_folder", name_or_folder, str | Path, "a str or Path")
    check_strings(revision=revision)
    check_optional_strings(token=token)
    check_flags(offline=offline)
    if is_gguf(name_or_folder):
        return Path(name_or_folder)
    if is_folder(name_or_folder):
        recover(Path(name_or_folder))
        return Path(name_or_folder)
    if is_shipped_name(name_or_folder):
        return shipped_folder(str(name_or_folder), revision)
    repo = checked_id(name_or_folder)
    check_reference(repo, revision)
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        snapshot = cached(repo, files, revision)
        if snapshot is None:
            why = "minitx is offline" if offline else "HF_HUB_OFFLINE is set"
            raise FileNotFoundError(
                f"{repo!r} (revision {revision!r}) is neither a folder nor in the Hub cache, "
                f"{constants.HF_HUB_CACHE}, and {why}; fetch it once with a connection."
            )
        return snapshot
    try:
        return listed(repo, files, revision, token)
    except ConnectionError as error:
        snapshot = cached(repo, files, revision)
        if snapshot is None:
            raise
        # The client would fall back silently, but the copy of a branch may be old.
        warn(f"{error} Using the copy in the Hub cache, {snapshot.folder}.")
        return snapshot


def is_folder(name: str | Path) -> bool:
    """Whether a folder exists.

    Raises:
        FileNotFoundError: a name that is too long for a folder or a Hub id.
        OSError: a folder that cannot be reached.
    """
    try:
        return bool(str(name)) and Path(name).is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise FileNotFoundError(
            f"{str(name)[:60]!r}... is neither a folder nor a valid Hub id: the name has "
            f"{len(str(name))} characters."
        ) from None


def checked_id(name: str | Path) -> str:
    """Returns a Hub id, "name" or "namespace/name".

    Raises:
        FileNotFoundError: a path that does not exist.
        ArgumentValueError: a file, or neither a path nor an id.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    if not str(name).strip() or "\0" in str(name):
        raise ArgumentValueError("name_or_folder", name, "a folder or a Hub id such as 'bert-base-uncased'")
    if Path(name).is_file():
        hint = (
            f"{name} is a file; pass the folder that holds it and config.json, or a file that ends in .gguf"
        )
        raise ArgumentValueError("name_or_folder", str(name), "a folder or a Hub id", hint)
    is_file = str(name).lower().endswith(SUFFIX)
    if is_file or isinstance(name, Path) or name.startswith((".", "/", "~", "\\")):
        raise FileNotFoundError(f"there is no {'file' if is_file else 'folder'} {str(name)!r}.")
    try:
        hf_hub_url(name, CONFIG)  # makes no request; checks the id
    except HFValidationError:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor a valid Hub id, which is 'name' or 'namespace/name' of "
            "letters, digits, '-', '_' and '.'."
        ) from None
    return name


def listed(repo: str, files: tuple[str, ...], revision: str, token: str | None) -> Snapshot:
    """Returns the snapshot on the Hub, with the first of `files` that it has downloaded."""
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="minitx", library_version=__version__)
    info = ask(api, repo, revision)
    present = {sibling.rfilename for sibling in info.siblings or ()}
    first = next((name for name in files if name in present), None)
    if first is None:
        expected = [name for name in files if name != ADAPTER_CONFIG][:2]
        raise FileNotFoundError(
            f"{repo} (revision {revision!r}) has no {' or '.join(expected)}; found "
            f"{summarize(sorted(present)) or 'nothing'}. Is it a model in Hugging Face's layout?"
        )
    # Downloading by revision lets the client record the commit of a branch.
    folder = download(api, repo, first, revision).parent
    if info.sha not in (None, folder.name) and revision != folder.name:
        return listed(repo, files, folder.name, token)  # a push came between the two requests
    return Snapshot(repo, folder, present, api)


def ask(api: HfApi, repo: str, revision: str) -> ModelInfo:
    """Returns the list of files; asks again, as the client does for files, where the Hub is busy."""
    attempt = 0
    while True:
        try:
            return api.model_info(repo, revision=revision, timeout=LIST_TIMEOUT)
        except Exception as error:
            response = getattr(error, "response", None)
            if response is None or response.status_code not in BUSY or attempt == RETRIES:
                raise_explained(error, repo, revision)
            wait = response.headers.get("Retry-After", "")
            time.sleep(min(int(wait[:9]) if wait.isdecimal() else 2**attempt, LONGEST_WAIT))
            attempt += 1


def check_reference(repo: str, revision: str) -> None:
    """Checks that the Hub's cache names a commit for a branch, if it has it; else raises ValueError."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    path = folder / "refs" / revision
    if ".." in path.parts or "\0" in revision or not path.is_file():
        return
    if not re.fullmatch(rb"[0-9a-f]{40}\s*", path.read_bytes()):
        raise ValueError(f"{path} does not hold the name of a commit; it is damaged, remove it.")


def cached(repo: str, files: tuple[str, ...], revision: str) -> Snapshot | None:
    """Returns the snapshot in the Hub cache; None if it has none of `files`."""
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repo, name, revision=revision) for name in files)
    folder = next((Path(path).parent for path in paths if isinstance(path, str)), None)
    if folder is None:
        return None
    # is_file: the cache links to files that may have been deleted
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Snapshot(repo, folder, present, None)


def download(api: HfApi, repo: str, name: str, revision: str) -> Path:
    """Downloads a file unless it is in the cache."""
    try:
        return Path(api.hf_hub_download(repo, name, revision=revision))
    except Exception as error:
        raise_explained(error, repo, revision, name)


# --- errors ----------------------------------------------------------------------------------------


def raise_explained(error: Exception, repo: str, revision: str, name: str = "") -> NoReturn:
    """Translates an exception of the client into a built-in one that names the cause and the way out.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: as in `fetch`.
        OSError: errors of the disk, unchanged.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the client fell back to the cache after this error
    status = getattr(getattr(error, "response", None), "status_code", None)
    target = f"{repo}/{name}" if name else repo
    access = "pass a token or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        raise PermissionError(
            f"{repo} is gated: ask for access at {constants.ENDPOINT}/{repo}, then {access}."
        ) from None
    if isinstance(error, RepositoryNotFoundError):
        raise FileNotFoundError(
            f"{repo!r} is neither a folder nor a repository on {constants.ENDPOINT}. A private one looks "
            f"the same to those who may not see it; if it is, {access}."
        ) from None
    if isinstance(error, RevisionNotFoundError):
        raise FileNotFoundError(
            f"{repo} has no revision {revision!r}; pass a branch, tag or commit."
        ) from None
    if status in (401, 403):
        raise PermissionError(
            f"the Hub refuses {target} (status {status}): the token is not valid or does not reach it; "
            f"ask for access at {constants.ENDPOINT}/{repo}, then {access}."
        ) from None
    if isinstance(error, EntryNotFoundError):
        raise FileNotFoundError(f"{repo} (revision {revision!r}) has no file {name}.") from None
    network = isinstance(error, ConnectionError | TimeoutError)
    if isinstance(error, OSError) and error.errno is not None and not network:
        raise error  # a full disk, a cache that may not be written
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    raise ConnectionError(
        f"there is no folder {repo!r} here, and minitx could not get {target} from {constants.ENDPOINT} "
        f"({reason}). Check the name and the connection; offline, minitx uses the Hub cache alone."
    ) from error
