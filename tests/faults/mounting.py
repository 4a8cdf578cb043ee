"""File systems of a test's own, mounted where nobody else sees them."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def _namespace() -> tuple[str, ...] | None:
    """What runs a command that may mount: root's way, else that of a user who is root in a namespace; or None."""
    for way in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        tried = [*way, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if shutil.which("unshare") and subprocess.run(tried, capture_output=True).returncode == 0:
            return way
    return None


NAMESPACE = _namespace()

#: Nothing else does what it does: RLIMIT_FSIZE is another error than a full disk, and /dev/full is no folder.
needs_mount = pytest.mark.skipif(NAMESPACE is None, reason="no file system can be mounted, not even by its own root")


def under(folder: str, options: str, first: str = "true", last: str = "true") -> list[str]:
    """What runs a command with a file system in memory at `folder`, after `first`; `last` still sees it."""
    assert NAMESPACE is not None
    script = f'mount -t tmpfs -o {options} tmpfs {folder} && {first} && "$@"; code=$?; {last}; exit $code'
    return [*NAMESPACE, "sh", "-c", script, "sh"]
