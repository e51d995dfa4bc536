"""Certificates made by openssl, as the data of a Secret of type kubernetes.io/tls."""

from __future__ import annotations

import subprocess
from pathlib import Path

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """A certificate authority of its own in a directory that is there."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory, self._name = directory, name
        self._issued = 0
        _openssl(directory, "req", "-x509", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.crt",
                 "-days", "2", "-subj", f"/CN={name}")  # fmt: skip
        self.certificate = (directory / f"{name}.crt").read_text()

    def issue(self, dns_name: str) -> dict[str, str]:
        """A certificate, its key, and this authority's certificate."""
        self._issued += 1
        at = f"{self._name}-{self._issued}"
        _openssl(self._directory, "req", *_NEW_KEY, "-keyout", f"{at}.key", "-out", f"{at}.csr",
                 "-subj", f"/CN={at}", "-addext", f"subjectAltName=DNS:{dns_name}")  # fmt: skip
        _openssl(self._directory, "x509", "-req", "-in", f"{at}.csr", "-CA", f"{self._name}.crt", "-CAkey",
                 f"{self._name}.key", "-days", "2", "-copy_extensions", "copy", "-out", f"{at}.crt")  # fmt: skip
        certificate, key = ((self._directory / f"{at}.{kind}").read_text() for kind in ("crt", "key"))
        return {"tls.crt": certificate, "tls.key": key, "ca.crt": self.certificate}


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
