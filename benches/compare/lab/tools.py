"""Where the programs are, which version they have, and how missing ones are installed."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

from lab.process import Failure

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
_SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_PACKAGES = {
    "nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl",
    "perf": "linux-perf", "valgrind": "valgrind", "vgdb": "valgrind",
}
_STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_ENVOY = REPOSITORY / ".test-tools" / "envoy"
_ENVOY_LIST = REPOSITORY / "tests" / "tools" / "envoy.txt"


def find(program):
    """The path of a Debian program, or a failure that names its package."""
    path = shutil.which(program, path=_SBIN)
    if path is None:
        raise Failure(f"{program} is missing: benches/compare/run --install, or apt-get install {_PACKAGES[program]}")
    return path


def envoy():
    """Envoy itself, not the Python script that starts it."""
    found = sorted(_ENVOY.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Failure(f"Envoy is not in {_ENVOY}: benches/compare/run --install, or tests/run")
    return found[0]


def nginx_stream_module():
    """nginx's TCP proxy, which is a module of its own in Debian."""
    if not _STREAM.is_file():
        raise Failure(f"{_STREAM} is missing: benches/compare/run --install, or apt-get install libnginx-mod-stream")
    return _STREAM


def builds(named):
    """Pillion's release binaries by the names of their contenders: those that were named (`NAME=PATH`, or `PATH`
    alone), or the repository's, built when it is not there."""
    if not named:
        return {"pillion": pillion()}
    found = {}
    for text in named:
        label, _, path = text.rpartition("=")
        name = f"pillion {label}".strip()
        if not re.fullmatch(r"[\w.-]*", label):
            raise Failure(f"--pillion {text}: a name is letters, digits, dots, dashes")
        if name in found:
            raise Failure(f"--pillion {text}: there is one of this name; give each a name, as in before=PATH")
        if not pathlib.Path(path).is_file():
            raise Failure(f"--pillion {text}: no such file")
        found[name] = pathlib.Path(path).resolve()
    return found


def pillion(path=None):
    """The release binary: the one that was named, or the repository's, built when it is not there."""
    if path is not None:
        if not path.is_file():
            raise Failure(f"--pillion {path}: no such file")
        return path.resolve()
    built = REPOSITORY / "target" / "release" / "pillion"
    if not built.is_file():
        command = ["cargo", "build", "--release", "--locked", "--bin", "pillion", "--bin", "pillion-proxy"]
        print(f"{built} is not there: {' '.join(command)}", file=sys.stderr)
        if subprocess.run(command, cwd=REPOSITORY, stdout=sys.stderr, check=False).returncode != 0:
            raise Failure(f"`{' '.join(command)}` failed")
    return built


def sidecar(pillion_path):
    """What starts a sidecar: `pillion-proxy` beside the binary, which is what a container holds, or the binary itself."""
    alone = _alone(pillion_path)
    return [alone] if alone.is_file() else [pillion_path, "proxy"]


def copied(pillion_path, copy):
    """A copy of the binary, and of `pillion-proxy` beside it, so that a build in the meantime does not mix two."""
    if _alone(pillion_path).is_file():
        shutil.copy2(_alone(pillion_path), _alone(copy))
    return shutil.copy2(pillion_path, copy)


def _alone(pillion_path):
    return pillion_path.with_name(f"{pillion_path.name}-proxy")


def versions(builds_by_name):
    """One line per program, as it names itself; builds of Pillion also by their file's digest."""
    found = {}
    for name, path in builds_by_name.items():
        program, *_ = sidecar(path)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
        found[name] = f"{name}: {_said([path, '--version'])}, sidecar's sha256 {digest}"
    found["envoy"] = f"envoy {_said([envoy(), '--version']).rpartition('version: ')[2].split('/')[1]}"
    for name, command in {"haproxy": ["haproxy", "-v"], "nginx": ["nginx", "-v"], "wrk": ["wrk", "-v"],
                          "h2load": ["h2load", "--version"], "openssl": ["openssl", "version"]}.items():
        found[name] = _said([find(command[0]), *command[1:]])
    return found


def _said(command):
    """The first line that a program says, without an address or a copyright."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return re.split(r" - https?:| Copyright", text[0])[0].strip() if text else "unknown"


def install():
    """Installs what is missing: Debian packages (as root, without starting a daemon), Envoy into .test-tools/."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program, path=_SBIN) is None]
    if not _STREAM.is_file():
        missing.append("libnginx-mod-stream")
    if missing:
        _install_packages(missing)
    if not (_ENVOY / "installed.txt").is_file():
        for command in (["python3", "-m", "venv", _ENVOY],
                        [_ENVOY / "bin" / "pip", "install", "--quiet", "-r", _ENVOY_LIST]):
            subprocess.run(command, check=True)
        shutil.copy(_ENVOY_LIST, _ENVOY / "installed.txt")
    print("all there: " + ", ".join([*_PACKAGES.values(), "libnginx-mod-stream", "envoy"]))


def _install_packages(packages):
    """apt-get under a policy-rc.d that says no, so that no server starts."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    if os.geteuid() != 0:
        raise Failure(f"as root: apt-get update && apt-get install --no-install-recommends {' '.join(packages)}")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
                       check=True, env=environment, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            policy.unlink()
