"""Names under which tenants and users are counted: of a bounded length, and no two that differ become one."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

MAX_ACCOUNT_NAME: Final = 64
"""Characters of such a name."""

_DIGEST_BYTES: Final = 8


def account_name(value: str) -> str:
    """`value`; of a longer one its first 47 characters, `~` and 16 hexadecimal digits, the same in every process."""
    if len(value) <= MAX_ACCOUNT_NAME:
        return value
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{value[: MAX_ACCOUNT_NAME - len(digest) - 1]}~{digest}"
