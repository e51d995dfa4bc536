"""Texts of a fixed shape in router.yaml: a regular expression each, and the same in words, for messages."""

from __future__ import annotations

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
CEL_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
HEADER = r"^[a-z0-9-]+$"
ANY_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
MODEL_URL = r"^https?://[^/\s?#@]+(/[^\s?#]*)?$"
PATH = r"^/[^\s#]*$"
API_VERSION = r"^[A-Za-z0-9.-]+$"
ENVIRONMENT_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
FILE_BESIDE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$"
CLOCK_TIME = r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$"
STORE_URL = r"^(rediss?://[A-Za-z0-9._\[\]:-]+(/[0-9]{1,4})?|memory:)$"
STORE_PREFIX = r"^[A-Za-z0-9._-]{1,63}$"
HUB_MODEL = r"^[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}$"
HUB_REVISION = r"^[\w./-]{1,200}$"
SHA256 = r"^(sha256:)?[0-9a-fA-F]{64}$"

IN_WORDS = {
    NAME: "only letters, digits, `.`, `_` and `-`, at most 63, a letter or digit first",
    CEL_NAME: "only letters, digits and `_`, at most 63, no digit first",
    HEADER: "write headers in lower case, letters, digits and `-`",
    ANY_HEADER: "a header's name has no spaces and at most 128 characters",
    MODEL_URL: "it must begin with http:// or https://, then host, port and path, and nothing else",
    PATH: "it must begin with `/`, without spaces",
    API_VERSION: "only letters, digits, `.` and `-`",
    ENVIRONMENT_VARIABLE: "write the name of an environment variable, letters, digits and `_`",
    FILE_BESIDE: "write the name of a file beside this one, letters, digits, `.`, `_` and `-`",
    CLOCK_TIME: "write a time as HH:MM, like 06:00",
    STORE_URL: "write `redis://host:6379/0`, or `rediss://` for TLS",
    STORE_PREFIX: "only letters, digits, `.`, `_` and `-`, at most 63",
    HUB_MODEL: "write `organisation/model`",
    HUB_REVISION: "write a commit, tag or branch",
    SHA256: "write a SHA-256, 64 hexadecimal digits",
}
"""What each of them allows, as a message goes on after "is not allowed here: "."""
