"""A volume of a ConfigMap or Secret as the kubelet keeps it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Mounted:
    """Versions in folders of their own, swapped by one rename; the files are links through `..data`."""

    path: Path
    versions: int = 0

    def swap(self, data: Mapping[str, str]) -> None:
        """A new version."""
        self.versions += 1
        version = self.path / f"..2026_{self.versions:04d}"
        version.mkdir(parents=True)
        for name, text in data.items():
            (version / name).write_text(text)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(Path("..data") / name)
        new = self.path / "..data_tmp"
        new.symlink_to(version.name)
        old = (self.path / "..data").resolve() if (self.path / "..data").is_symlink() else None
        new.rename(self.path / "..data")
        if old is not None:
            shutil.rmtree(old)
