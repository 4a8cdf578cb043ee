"""Kernels that the Hugging Face package `kernels` loads, from the hub or from a folder."""

from __future__ import annotations

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

    def loaded(self) -> Any:
        """The kernel's module; raises Missing where the hub or the folder has no build for this machine."""
        kernels = self.require("kernels")
        try:
            if self.folder is not None:
                return kernels.get_local_kernel(Path(self.folder).expanduser(), **self.trusted)
            return kernels.get_kernel(self.repository, revision=self.revision, **self.trusted)
        # No such file, no build for this system, no network (a ValueError since its publisher cannot be verified)
        except (OSError, ValueError) as error:
            source = self.folder or f"{self.repository} at {self.revision}"
            raise Missing(f"kernels cannot load {source}: {' '.join(str(error).split())}") from error
