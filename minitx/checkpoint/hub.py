"""Hub ids to local folders, through the unmodified huggingface_hub client and its cache.

One request lists what a repository holds, then only the files that minitx reads are fetched, all of one
commit. The client does the rest: HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, progress bars, retries,
and moving a file to its place only when it is whole.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from minitx.checkpoint.files import BIN, BIN_INDEX, GENERATION, INDEX, SINGLE, read_index, summarize

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONFIG = "config.json"

# What says how a model is used, beside its weights: generation, sentence embeddings. Small, and often absent.
USE = (
    GENERATION,
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "chat_template.jinja",
    "chat_template.json",
)
TEMPLATES = "additional_chat_templates/"

LIST_TIMEOUT = 10.0  # seconds that the server may be silent before it counts as out of reach


def fetch(
    name_or_folder: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
) -> Path:
    """The folder with a checkpoint: config.json and its weights in one format, safetensors before `.bin`.

    Args:
        name_or_folder: an existing folder, given back as it is, or a Hub id.
        revision: branch, tag or commit.
        token: access token; None takes HF_TOKEN or the token of `hf auth login`.
        offline: use only what is in the Hub cache; HF_HUB_OFFLINE=1 does the same.

    Returns:
        The folder, or the snapshot in the Hub cache.

    Raises:
        FileNotFoundError: neither a folder nor a repository, no such revision, no config.json or weights
            in it, or offline and not in the cache.
        PermissionError: a gated or private repository, or a token that the Hub refuses.
        ConnectionError: the Hub is out of reach, or went away before a file was whole.
        ValueError: not a folder's name nor an id; an index that names a shard outside its folder.
    """
    snapshot = find(name_or_folder, (CONFIG,), revision=revision, token=token, offline=offline)
    if isinstance(snapshot, Path):
        return snapshot
    for name in (SINGLE, INDEX, BIN, BIN_INDEX):
        if name in snapshot.present:
            break
    else:
        found = summarize(sorted(snapshot.present)) or "nothing"
        raise FileNotFoundError(
            f"{snapshot.where} has no weights that minitx reads: expected {SINGLE}, {INDEX}, {BIN} or "
            f"{BIN_INDEX}; found {found}."
        )
    # what is small comes first, so that a bad index is refused before gigabytes have been fetched
    small = [CONFIG, *(extra for extra in USE if extra in snapshot.present)]
    for extra in small:
        snapshot.get(extra)
    path = snapshot.get(name)
    for shard in sorted(set(read_index(path).values())) if name in (INDEX, BIN_INDEX) else ():
        snapshot.get(shard)
    return snapshot.folder


def fetch_tokenizer(
    name_or_folder: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
) -> Path:
    """The folder with config.json and the tokenizer's files, as many of them as there are.

    Takes and raises what `fetch` does.
    """
    wanted = (CONFIG, *TOKENIZER)
    snapshot = find(name_or_folder, wanted, revision=revision, token=token, offline=offline)
    if isinstance(snapshot, Path):
        return snapshot
    templates = (name for name in sorted(snapshot.present) if name.startswith(TEMPLATES))
    for name in (*wanted, *templates):
        if name in snapshot.present:
            snapshot.get(name)
    return snapshot.folder


# --- one commit of a repository --------------------------------------------------------------------


@dataclass
class Snapshot:
    """One commit, on the Hub or in the cache.

    Attributes:
        repo: the Hub id.
        folder: where the client keeps the files of this commit.
        present: the names of its files.
        api: the client; None where only the cache may be used.
    """

    repo: str
    folder: Path
    present: set[str]
    api: HfApi | None

    @property
    def where(self) -> str:
        """For error messages."""
        commit = self.folder.name[:12]
        return f"{self.repo} ({commit})" if self.api else f"{self.repo} ({commit}) in the Hub cache"

    def get(self, name: str) -> Path:
        """A file, fetched if it is not in the cache.

        Raises:
            FileNotFoundError: there is no such file.
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
    wanted: tuple[str, ...],
    *,
    revision: str,
    token: str | None,
    offline: bool,
) -> Path | Snapshot:
    """A folder as it is, or the snapshot of a Hub id that has at least one of the `wanted` files."""
    if str(name_or_folder) and Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    repo = checked_id(name_or_folder)
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        found = cached(repo, wanted, revision)
        if found is None:
            why = "minitx is offline" if offline else "HF_HUB_OFFLINE is set"
            raise FileNotFoundError(
                f"{repo!r} (revision {revision!r}) is neither a folder nor in the Hub cache, "
                f"{constants.HF_HUB_CACHE}, and {why}; fetch it once with a connection."
            )
        return found
    try:
        return listed(repo, wanted, revision, token)
    except ConnectionError as error:
        found = cached(repo, wanted, revision)
        if found is None:
            raise
        # The client itself falls back silently; whoever asked for "main" should know it may be old.
        warnings.warn(f"{error} Using the copy in the Hub cache, {found.folder}.", stacklevel=4)
        return found


def checked_id(name: str | Path) -> str:
    """A Hub id, "name" or "namespace/name".

    Raises:
        FileNotFoundError: a path, and nothing is there.
        ValueError: a file, or what can be neither a path nor an id.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    if not isinstance(name, str | Path) or not str(name).strip():
        raise ValueError(f"{name!r} is neither a folder nor a Hub id such as 'bert-base-uncased'.")
    if Path(name).is_file():
        raise ValueError(f"{name} is a file; give the folder that it lies in, with its config.json.")
    if isinstance(name, Path) or name.startswith((".", "/", "~", "\\")):
        raise FileNotFoundError(f"there is no folder {str(name)!r}.")
    try:
        hf_hub_url(name, CONFIG)  # makes no request: it only applies the client's rules for an id
    except HFValidationError:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor a valid Hub id, which is 'name' or 'namespace/name' of "
            "letters, digits, '-', '_' and '.'."
        ) from None
    return name


def listed(repo: str, wanted: tuple[str, ...], revision: str, token: str | None) -> Snapshot:
    """The snapshot as the Hub has it, with the first of the `wanted` files fetched."""
    from huggingface_hub import HfApi

    from minitx import __version__

    api = HfApi(token=token, library_name="minitx", library_version=__version__)
    try:
        info = api.model_info(repo, revision=revision, timeout=LIST_TIMEOUT)
    except Exception as error:
        raise_explained(error, repo, revision)
    present = {sibling.rfilename for sibling in info.siblings or ()}
    first = next((name for name in wanted if name in present), None)
    if first is None:
        raise FileNotFoundError(
            f"{repo} (revision {revision!r}) has no {' or '.join(wanted[:2])}; found "
            f"{summarize(sorted(present)) or 'nothing'}. Is it a model in Hugging Face's layout?"
        )
    # Asked for by its revision, the file tells the client to remember which commit that is.
    folder = download(api, repo, first, revision).parent
    if info.sha not in (None, folder.name) and revision != folder.name:
        return listed(repo, wanted, folder.name, token)  # a push came between the two requests
    return Snapshot(repo, folder, present, api)


def cached(repo: str, wanted: tuple[str, ...], revision: str) -> Snapshot | None:
    """The snapshot as the cache has it; None if it has none of the `wanted` files."""
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repo, name, revision=revision) for name in wanted)
    folder = next((Path(path).parent for path in paths if isinstance(path, str)), None)
    if folder is None:
        return None
    # is_file: the cache links to files that may have been deleted
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Snapshot(repo, folder, present, None)


def download(api: HfApi, repo: str, name: str, revision: str) -> Path:
    """One file, from the cache if it is there."""
    try:
        return Path(api.hf_hub_download(repo, name, revision=revision))
    except Exception as error:
        raise_explained(error, repo, revision, name)


# --- what went wrong -------------------------------------------------------------------------------


def raise_explained(error: Exception, repo: str, revision: str, name: str = "") -> NoReturn:
    """Raises what the client's exception means for whoever asked for `repo`.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: as in `fetch`.
        OSError: the disk's own errors, as they are.
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
        error = error.__cause__  # the client looked into the cache after it had failed to ask the Hub
    status = getattr(getattr(error, "response", None), "status_code", None)
    what = f"{repo}/{name}" if name else repo
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
            f"{repo} has no revision {revision!r}; give a branch, tag or commit."
        ) from None
    if status in (401, 403):
        raise PermissionError(
            f"the Hub refuses {what} (status {status}): the token is not valid or does not reach it; "
            f"ask for access at {constants.ENDPOINT}/{repo}, then {access}."
        ) from None
    if isinstance(error, EntryNotFoundError):
        raise FileNotFoundError(f"{repo} (revision {revision!r}) has no file {name}.") from None
    network = isinstance(error, ConnectionError | TimeoutError)
    if isinstance(error, OSError) and error.errno is not None and not network:
        raise error  # a full disk, a cache that may not be written
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    raise ConnectionError(
        f"there is no folder {repo!r} here, and minitx could not get {what} from {constants.ENDPOINT} "
        f"({reason}). Check the name and the connection; offline, minitx uses the Hub cache alone."
    ) from error
