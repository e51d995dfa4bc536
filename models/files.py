"""Writing into a classifier's folder: each file is there as a whole, the old one or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor


def replace_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON in UTF-8."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    _replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes contiguous tensors as safetensors."""
    _replace(path, lambda partial: save_file(dict(tensors), partial))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.chmod(0o644)
    os.replace(partial, path)
