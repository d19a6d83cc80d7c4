"""Fetching from the hub, with the network replaced."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cpsam.data import load_dataset
from cpsam.data.sets.cifar import HUB_DATASETS
from cpsam.data.storage import hub
from cpsam.errors import DataError

CONTENT = {"a/b.parquet": b"what the hub has"}
FILE = hub.HubFile(
    "owner/name", "0" * 40, "a/b.parquet", hashlib.sha256(CONTENT["a/b.parquet"]).hexdigest()
)


class Session:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def head(self, url: str, timeout: float) -> None:
        assert url.startswith("https://") and timeout <= 10
        if self.error:
            raise self.error


@pytest.fixture
def hub_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple]]:
    """Replace the client: `content` by path, or an error for every request. Returns the list of
    downloads asked for.
    """

    def replace(
        content: dict[str, bytes], error: Exception | None = None, cached: Path | None = None
    ) -> list[tuple]:
        asked: list[tuple] = []

        def download(repository: str, path: str, *, repo_type: str, revision: str) -> str:
            asked.append((repository, path, repo_type, revision))
            target = tmp_path / "hub" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content[path])
            return str(target)

        monkeypatch.setattr(hub, "get_session", lambda: Session(error))
        monkeypatch.setattr(hub, "hf_hub_download", download)
        monkeypatch.setattr(
            hub, "try_to_load_from_cache", lambda *_, **__: None if cached is None else str(cached)
        )
        return asked

    return replace


def test_a_file_is_downloaded_at_its_revision_and_checked(
    hub_with: Callable[..., list[tuple]],
) -> None:
    asked = hub_with(CONTENT)
    assert hub.fetch(FILE, "").read_bytes() == b"what the hub has"
    assert asked == [("owner/name", "a/b.parquet", "dataset", "0" * 40)]


def test_a_file_that_is_here_already_needs_no_network(
    hub_with: Callable[..., list[tuple]], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.write_bytes(b"what the hub has")
    asked = hub_with({}, ConnectionError("no network"), cached=here)
    assert hub.fetch(FILE, "") == here and asked == []


def test_another_content_is_refused(hub_with: Callable[..., list[tuple]]) -> None:
    hub_with({"a/b.parquet": b"something else"})
    with pytest.raises(
        DataError,
        match=(
            rf"owner/name/a/b.parquet: .* has SHA-256 .*, not the pinned {FILE.sha256}; delete it"
        ),
    ):
        hub.fetch(FILE, "")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Name or service not known\nmore"),
        LocalEntryNotFoundError("offline mode is enabled"),
    ],
)
@pytest.mark.parametrize("name", HUB_DATASETS)
def test_without_a_connection_one_line_says_what_to_do(
    hub_with: Callable[..., list[tuple]], name: str, error: Exception
) -> None:
    asked = hub_with({}, error)
    with pytest.raises(
        DataError,
        match=rf"uoft-cs/{name}/.*train.*cannot be fetched.*no internet, copy.*CPSAM_DATA",
    ) as caught:
        load_dataset(name)
    assert str(error).partition("\n")[0] in str(caught.value) and "\n" not in str(caught.value)
    assert asked == []  # nor is the client, which retries for half a minute, called


def test_offline_mode_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(DataError, match="cannot be fetched"):
        load_dataset("cifar100")


def test_what_is_fetched_is_loaded(
    hub_with: Callable[..., list[tuple]], small_cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, hashes = {}, {}
    for split in ("train", "test"):
        data = (small_cifar / f"cifar100/{split}-00000-of-00001.parquet").read_bytes()
        content[f"cifar100/{split}-00000-of-00001.parquet"] = data
        hashes[split] = hashlib.sha256(data).hexdigest()
    for split, value in hashes.items():
        monkeypatch.setitem(HUB_DATASETS["cifar100"].sha256, split, value)
    asked = hub_with(content)
    fetched = load_dataset("cifar100")
    assert {revision for *_, revision in asked} == {
        "aadb3af77e9048adbea6b47c21a81e47dd092ae5"
    } and len(asked) == 2
    assert fetched.fingerprint == load_dataset("cifar100", small_cifar).fingerprint
