"""Classifiers of a Hugging Face hub, brought to the local cache: files to read, never code and never pickles.

`huggingface_hub` does the downloading, so its environment variables hold: `HF_ENDPOINT` names another hub, `HF_TOKEN`
opens private ones, `HF_HUB_OFFLINE` forbids all of it, `HF_HOME` says where the cache is.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_extproc.inference.base import UnusableModel
from router_extproc.inference.hugging_face import FILES

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 1024**3
"""A classifier beside a proxy is not larger; what is was named by mistake."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of a hub: `name` is `organisation/model`, `revision` a commit, tag or branch, `cache` a directory.

    Without a revision it is the hub's main branch, without a cache that of `huggingface_hub`.
    """

    name: str
    revision: str | None = None
    cache: Path | None = None


class Hub:
    """Brings models here, and remembers what it brought. Any thread may ask; one model comes at a time.

    What a tag or a branch stands for is asked once, so that signals and weights never come from two versions of a model
    as long as they ask the same `Hub`.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Downloads at most `most_bytes` (1 or more) for one model."""
        self._most_bytes = most_bytes
        self._found: dict[HubModel, Path] = {}
        self._finding = threading.Lock()

    def fetch(self, model: HubModel) -> Path:
        """The directory that holds the model's files, which are downloaded unless they are there. Takes minutes.

        When the hub cannot be reached, what was downloaded before serves. Raises UnusableModel with what to do.
        """
        with self._finding:
            known = self._found.get(model)
            if known is None or not known.is_dir():
                known = self._found[model] = self._fetched(model)
            return known

    def _fetched(self, model: HubModel) -> Path:
        # Imported here: who names no hub never waits for it.
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import DryRunError
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        wanted: dict[str, Any] = {
            "repo_id": model.name,
            "revision": model.revision,
            "cache_dir": model.cache,
            "allow_patterns": list(FILES),
            # Exports for other runtimes lie below the top folder.
            "ignore_patterns": ["*/*"],
            "endpoint": os.environ.get("HF_ENDPOINT") or None,
        }
        try:
            try:
                planned = snapshot_download(**wanted, dry_run=True)
            except DryRunError as error:
                return _cached(wanted, error.__cause__ or error)
            size = sum(file.file_size or 0 for file in planned if file.will_download)
            if size > self._most_bytes:
                raise UnusableModel(
                    f"hub model {model.name}: {size / 1e9:.1f} GB of weights, at most {self._most_bytes / 1e9:.1f}"
                )
            if size:
                log.info("downloading hub model %s, %.1f MB", model.name, size / 1e6)
            return Path(snapshot_download(**wanted))
        except UnusableModel:
            raise
        except Exception as error:
            raise UnusableModel(f"hub model {model.name}: {_advice(model, error)}") from error


HUB = Hub()
"""The one of this process."""


def _cached(wanted: dict[str, Any], why: BaseException) -> Path:
    """What an earlier download left. Raises `why` the hub was not reached when there is nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(**wanted, local_files_only=True))
    except (LocalEntryNotFoundError, IncompleteSnapshotError):
        raise why from None
    log.warning("hub model %s: the hub cannot be reached, what was downloaded before serves", wanted["repo_id"])
    return directory


def _advice(model: HubModel, error: Exception) -> str:
    """What is wrong in one sentence, and what to do about it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case RevisionNotFoundError():
            return f"the hub has no revision `{model.revision or 'main'}` of it"
        case GatedRepoError() | RepositoryNotFoundError():
            return "the hub does not know it, or shows it only to some: set HF_TOKEN to a token that may read it"
        case HFValidationError():
            return str(error)
        case OfflineModeIsEnabled():
            why = "HF_HUB_OFFLINE forbids downloads here, and it was not downloaded before"
        case _:
            endpoint = os.environ.get("HF_ENDPOINT", "")
            why = f"it cannot be downloaded{' from ' + endpoint if endpoint else ''} ({type(error).__name__}: {error})"
    revision = f" --revision {model.revision}" if model.revision else ""
    return (
        f"{why}. Allow it, or run `hf download {model.name}{revision} --local-dir DIRECTORY` on a machine that reaches "
        "the hub, and give the directory as `path` instead of `hub`"
    )
