"""Fetches files of the Hugging Face hub at a pinned revision, and compares a pinned hash."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.utils import get_session

from cpsam.errors import DataError
from cpsam.files import hash_file

CONNECT_SECONDS = 10


@dataclass(frozen=True)
class HubFile:
    """Names one file of a data set repository.

    Args:
        repository: ``owner/name``.
        revision: Commit.
        path: Inside the repository.
        sha256: Of its content.
    """

    repository: str
    revision: str
    path: str
    sha256: str


def fetch(file: HubFile, otherwise: str) -> Path:
    """Returns a file of the hub, from the hub's own cache or downloaded into it.

    Args:
        file: What to fetch.
        otherwise: The end of the error message: what a person without a connection can do.

    Returns:
        Its path; the content has the pinned hash.

    Raises:
        DataError: If the hub cannot be reached, or the file is not the one that was pinned.
    """
    where = f"{file.repository}/{file.path}"
    cached = try_to_load_from_cache(
        file.repository, file.path, repo_type="dataset", revision=file.revision
    )
    try:
        path = Path(cached) if isinstance(cached, str) else download(file)
    # The hub's client raises errors of its own, of its transport and of the system.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{where}: cannot be fetched from the Hugging Face hub ({reason}); {otherwise}"
        ) from error
    found = hash_file(path)
    if found != file.sha256:
        raise DataError(
            f"{where}: {path} has SHA-256 {found}, not the pinned {file.sha256}; delete it and try"
            " again"
        )
    return path


def download(file: HubFile) -> Path:
    # Without a network, the client retries for half a minute. One request without retries fails at
    # once.
    get_session().head(ENDPOINT, timeout=CONNECT_SECONDS)
    return Path(
        hf_hub_download(file.repository, file.path, repo_type="dataset", revision=file.revision)
    )
