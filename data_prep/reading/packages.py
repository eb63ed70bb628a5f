"""Published packages into the cache, through whichever client installs such packages on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from data_prep.progress import bar
from data_prep.reading.archive import sha256_of
from data_prep.rows import SourceFile
from data_prep.settings import Package
from vlm.contracts.errors import InputError

log = logging.getLogger(__name__)
TIME_LIMIT = 1800  # seconds for one package
INSTALL = {
    "pip": "pip is missing in this Python; install it with: python -m ensurepip",
    "npm": "npm is missing; install Node.js (Debian: apt-get install npm, conda: conda install nodejs)",
    "apt": "apt-get and dpkg-deb are missing; this part needs Debian or a system derived from it",
}


@dataclass(frozen=True)
class Fetched:
    """A package in the cache. seconds: of the download, 0 if it was there already."""

    path: Path
    source: SourceFile
    seconds: float


def fetch(package: Package, cache: Path) -> Fetched:
    """The package's file, from the cache if it is there, else downloaded, checked and renamed into place.

    Raises: InputError if the client is missing, the download fails, or the file is not the pinned one.
    """
    home = cache / package.client / package.name
    for path in sorted(home.glob("*")):
        if _version(package, path.name) == package.version or package.version is None:
            digest = sha256_of(path)
            if _is_pinned(package, path.name, digest):
                return _fetched(package, path, digest, 0.0)
            log.warning("%s is damaged: its sha256 is not the pinned one; fetching it again", path)
    require_client(package.client)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=cache) as folder:
        start = time.perf_counter()
        _download(package, Path(folder))
        seconds = time.perf_counter() - start
        (arrived,) = [path for path in Path(folder).iterdir() if path.is_file()]
        digest = sha256_of(arrived)
        if not _is_pinned(package, arrived.name, digest):
            raise InputError(
                f"{package.client} package {package.name} {package.version}: sha256 {digest} is not the pinned "
                f"{package.sha256}; nothing was kept. If the new file is right, pin it in conf/source"
            )
        kept = home / arrived.name
        os.replace(arrived, kept)
        return _fetched(package, kept, digest, seconds)


def require_client(client: str) -> None:
    """Raises: InputError that says what to install."""
    if client == "pip":
        found = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
    else:
        found = all(shutil.which(program) for program in {"npm": ("npm",), "apt": ("apt-get", "dpkg-deb")}[client])
    if not found:
        raise InputError(INSTALL[client])


def _download(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    command = {
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", ".",
                "--disable-pip-version-check", f"{name}=={version}" if version else name],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}" if version else name],
        "apt": ["apt-get", "download", name],  # Debian keeps one version a release
    }[package.client]  # fmt: skip
    with bar(f"fetching {name}", package.bytes, unit="B") as progress, tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages)
        deadline = time.monotonic() + TIME_LIMIT
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
                progress.to(_bytes_in(folder))
        finally:
            process.kill()
            process.wait()
        messages.seek(0)
        told = messages.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise InputError(
            f"{' '.join(command)} failed (exit code {process.returncode}): {' | '.join(told[-3:])}; "
            f"{'run apt-get update, or ' if package.client == 'apt' else ''}check the network, or give the published "
            "files with from=DIR"
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for home, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # clients rename their files while they work
                total += os.stat(os.path.join(home, name)).st_size
    return total


def _is_pinned(package: Package, file: str, digest: str) -> bool:
    """Whether the file may be used. A version other than the pinned one is told: its client has checked it."""
    found = _version(package, file)
    if package.version is not None and found != package.version:
        told = "%s is version %s here, %s is pinned: its sha256 is not compared"
        log.warning(told, package.name, found, package.version)
        return True
    return package.sha256 is None or digest == package.sha256


def _version(package: Package, file: str) -> str:
    """name-1.2-py3-none-any.whl, name-1.2.tgz, name_1%3a2-3_all.deb -> 1.2, 1.2, 1:2-3."""
    if package.client == "npm":
        return file.removeprefix(package.name.replace("/", "-").lstrip("@") + "-").removesuffix(".tgz")
    return unquote(file.split("_" if package.client == "apt" else "-")[1])


def _fetched(package: Package, path: Path, digest: str, seconds: float) -> Fetched:
    version, size = _version(package, path.name), path.stat().st_size
    how = f"downloaded in {seconds:.1f} s" if seconds else "in the cache"
    log.info(
        "%s %s %s: %.1f MB, %s, sha256 %s, licence %s", package.client, package.name, version, size / 1e6, how, digest,
        package.license,
    )  # fmt: skip
    source = SourceFile(path.name, size, digest, f"{package.client} {package.name} {version}")
    return Fetched(path, source, seconds)
