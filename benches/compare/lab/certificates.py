"""A root and two leaf certificates for the peers' mutual TLS: ECDSA P-256, made by openssl and gone with the folder."""

import dataclasses
import pathlib
import subprocess

from lab.process import Failure
from lab.tools import find


@dataclasses.dataclass
class Identity:
    """A leaf certificate: its key, its chain, both in one file (for haproxy), and its names."""

    key: pathlib.Path
    certificate: pathlib.Path
    both: pathlib.Path | None = None
    name: str = ""
    spiffe: str = ""


class Certificates:
    """The peers' root, a client and a server."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder = folder
        self.root = folder / "root.crt"
        self._openssl("req", "-x509", *self._new_key("root"), "-out", self.root, "-days", "2", "-subj", "/CN=root",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        self.client = self._leaf("client")
        self.server = self._leaf("server")

    def _leaf(self, name):
        key, request, certificate = (self._folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
        spiffe = f"spiffe://cluster.local/ns/bench/sa/{name}"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}.bench,URI:{spiffe}\n"
                              "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._openssl("req", *self._new_key(name), "-out", request, "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self._folder / "root.key",
                      "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate)
        both = self._folder / f"{name}.both"
        both.write_text(certificate.read_text() + key.read_text())
        return Identity(key, certificate, both, f"{name}.bench", spiffe)

    def _new_key(self, name):
        key = self._folder / f"{name}.key"
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", key)

    def _openssl(self, *arguments):
        command = [find("openssl"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"`{' '.join(command)}` ended with status {done.returncode}: {done.stderr.strip()}")
