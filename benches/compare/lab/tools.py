"""Where the programs are, which version they have, and how missing ones are installed."""

import os
import pathlib
import shutil
import subprocess
import sys

from lab.process import Failure

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
_SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_PACKAGES = {
    "nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl",
    "valgrind": "valgrind", "vgdb": "valgrind",
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


def pillion(path):
    """The release binary: the one that was named, or the repository's, built when it is not there."""
    if path is not None:
        if not path.is_file():
            raise Failure(f"--pillion {path}: no such file")
        return path.resolve()
    built = REPOSITORY / "target" / "release" / "pillion"
    if not built.is_file():
        command = ["cargo", "build", "--release", "--locked", "--bin", "pillion"]
        print(f"{built} is not there: {' '.join(command)}", file=sys.stderr)
        if subprocess.run(command, cwd=REPOSITORY, stdout=sys.stderr, check=False).returncode != 0:
            raise Failure(f"`{' '.join(command)}` failed")
    return built


def versions(pillion_path):
    """One line per program, as it names itself."""
    asked = {
        "pillion": [pillion_path, "--version"], "envoy": [envoy(), "--version"],
        "haproxy": [find("haproxy"), "-v"], "nginx": [find("nginx"), "-v"],
        "wrk": [find("wrk"), "-v"], "h2load": [find("h2load"), "--version"],
    }
    found = {}
    for name, command in asked.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        text = (done.stdout.strip() or done.stderr.strip()).splitlines()
        found[name] = text[0].replace(str(command[0]), name).strip() if text else "unknown"
    return found


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
