"""Kernels that the Hugging Face package `kernels` loads, from the hub or from a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attnsweep.errors import ConfigError, Missing
from attnsweep.impls.function import FunctionAttention


class HubKernel(FunctionAttention):
    """A function of a kernel repository: FunctionAttention, with its module from the hub.

    `repository` and `revision` (a branch, tag or commit) name it there; `folder` is a local kernel repository instead.
    `trust_remote_code` is for a publisher that the hub does not list as trusted. The revision is part of the cell's
    identity: a tag or a commit stays what it is, a branch may move.
    """

    def __init__(
        self,
        *,
        repository: str | None = None,
        revision: str | None = None,
        folder: str | None = None,
        trust_remote_code: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.module = "kernels"
        self.repository, self.revision, self.folder = repository, revision, folder
        self.trusted = {"trust_remote_code": True} if trust_remote_code else {}

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        name = impl["name"]
        if not isinstance(impl["function"], str):
            raise ConfigError(f"impl {name}: function must be the name of a function, not {impl['function']!r}")
        # It is the kernel's own and has no package in front.
        super().validate({**impl, "function": f"kernel.{impl['function']}"})
        for key in ("repository", "revision", "folder"):
            if impl.get(key) is not None and not isinstance(impl[key], str):
                raise ConfigError(f"impl {name}: {key} must be text or null, not {impl[key]!r}")
        asked = (bool(impl.get("repository")), bool(impl.get("revision")), bool(impl.get("folder")))
        if asked not in ((True, True, False), (False, False, True)):
            raise ConfigError(f"impl {name}: either repository and revision or folder must be given")

    @property
    def _source(self) -> str:
        return self.folder or f"{self.repository} at {self.revision}"

    def why_missing(self) -> str | None:
        if self.folder is not None and not os.path.isdir(os.path.expanduser(self.folder)):
            return f"{self.folder} is no folder; impl.folder must be that of a local kernel repository"
        return super().why_missing()

    def why_lacking(self, library: Any) -> str:
        return f"{self._source} has no {self.function}; function must name what it has"

    def loaded(self) -> Any:
        """The kernel's module; raises Missing where the hub is out of reach, or has no build for this machine."""
        kernels = self.require("kernels")
        # The first of them is httpx's base, or requests': what they raise without a network is no OSError of httpx
        failures = self.require("huggingface_hub.errors").HfHubHTTPError.__bases__
        try:
            if self.folder is not None:
                return kernels.get_local_kernel(Path(os.path.expanduser(self.folder)), **self.trusted)
            return kernels.get_kernel(self.repository, revision=self.revision, **self.trusted)
        # No such file, no build for this system, a publisher that is not trusted, no network
        except (OSError, ValueError, *failures) as error:
            raise Missing(f"kernels cannot load {self._source}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """What the library said, and where the hub could not be reached what works without it.

    It asks first who publishes the kernel. Where that fails, for whatever reason, it advises to trust whoever it is
    (_check_trust_remote_code in hf_hub.py of kernels 0.17.2): the reason stands here in place of that.
    """
    text, failed = _line(error), error
    if "could not verify publisher" in text and error.__context__ is not None:
        failed = error.__context__
        text = f"{text.partition('. ')[0]} ({_line(failed)})"
    # httpx's base of what is no answer, requests' two, and Python's own
    if {"TransportError", "ConnectionError", "Timeout"}.isdisjoint(cls.__name__ for cls in type(failed).__mro__):
        return text
    return (
        f"{text}: the hub could not be reached. Without a network impl.folder takes a local kernel repository (with "
        "impl.repository=null impl.revision=null), and HF_HUB_OFFLINE=1 what was downloaded before"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
