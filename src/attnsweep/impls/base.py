"""What an implementation is: how it is prepared, what it cannot do, and whether its library is here.

No framework and no library is imported at the top: the parent reads these classes too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from abc import ABC, abstractmethod
from importlib.machinery import ModuleSpec
from typing import Any, Callable, ClassVar

from attnsweep import environment, frameworks, metrics
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls import fields
from attnsweep.impls.fields import LIMITS, broken_rule


class Attention(ABC):
    """An implementation of attention. Subclasses override `prepare`, and `supports` where data cannot say it.

    `prepare` imports the library and returns function(q, k, v) -> out, or function(q, k, v, bias) -> out for a
    case with a dense bias; arrays come and go in `layout`. Everything that a caller does once for many calls
    belongs in `prepare`, everything that it does for each call belongs in the function.
    """

    framework: str = "torch"
    #: False for a ceiling: its output is not attention's, is not checked and never ranked.
    is_attention: ClassVar[bool] = True
    #: The module whose absence means `missing`; None where the framework itself is the library.
    module: str | None = None
    #: Seconds that planning takes, set in `prepare` where that also does what is done once and for all: compiling.
    plan_s: float | None = None
    #: Flags of the record, set in `prepare`: what a reader of the result must know and its YAML cannot say.
    flags: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        name: str,
        layout: str = "bshd",
        distribution: str | None = None,
        min_version: str | None = None,
        pip: str | None = None,
        supports: dict[str, Any] | None = None,
        kernels: dict[str, list[str]] | None = None,
        precision: dict[str, Any] | None = None,
        env: dict[str, Any] | None = None,
        isolation: str = "fork",
        framework: str | None = None,
    ) -> None:
        self.name = name
        self.layout = layout
        self.distribution = distribution
        #: The oldest version of the distribution that has what this needs, as PEP 440 orders them.
        self.min_version = min_version
        #: What `pip install` is given to get the library, where that is not the name of its distribution.
        self.pip = pip
        self.rules = supports or {}
        self.env = env or {}
        self.kernels = kernels or {}
        self.framework = framework or type(self).framework
        given = {key: value for key, value in (precision or {}).items() if value is not None}
        #: None for the case's own precision, else `class`, `cosine` and `rel_l1`.
        self.precision = {**LIMITS, **given} if given else None

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        """Raise ConfigError where the YAML's values cannot be what they must; the keys are known to fit."""
        name = impl["name"]
        fields.check(impl)
        said = [vars(one).get("framework") for one in cls.__mro__[: cls.__mro__.index(Attention)]]
        own = next((one for one in said if one is not None), None)
        if own is not None and impl.get("framework") not in (None, own):
            raise ConfigError(f"impl {name}: framework must be {own}, as its class says, not {impl['framework']!r}")

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        """Why this case cannot be done on this device in this compile mode, in words, or None; imports nothing."""
        return None

    def lay_out_bias(self, bias: Any) -> Any:
        """A dense bias, (1, H, Sq, Skv), as the library wants it in memory; the same array where it is so already.

        A caller allocates it so, once: it is no part of what is timed.
        """
        return bias

    def work(self, case: Case) -> metrics.Work:
        """What one call really does: for attention the count of `metrics`."""
        return metrics.work(case)

    @abstractmethod
    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        """The function to call, ready for this case; `device` is cuda or cpu.

        Raises Missing where the library is not here, Unsupported where it turns out that it cannot do the case.
        """

    def why_unsupported(self, case: Case, device: Device, compile: dict[str, Any]) -> str | None:
        """The first of the YAML's rules that the case breaks, or what `supports` says."""
        return (
            frameworks.why_foreign(self.framework, compile.get("mode"))
            or broken_rule(self.rules, case, device, compile["name"])
            or _unreplayed(case, device, compile.get("mode"))
            or self.supports(case, device, compile["name"])
        )

    def why_missing(self) -> str | None:
        """Why the library is not in this interpreter, or not new enough, or None, also where only an import could tell:
        none is made.
        """
        why = self._too_old_here()
        if why is not None or self.module is None:
            return why
        try:
            name, spec = _found(self.module)
        except (KeyError, ValueError):
            return None
        if spec is None:
            return self.install(f"No module named {name!r}")
        return self._only_folder(self.module, spec) or self._hidden(self.module, spec)

    def why_too_old(self, version: str | None) -> str | None:
        """Why this version of the distribution will not do, or None, also where nobody can compare it: it is None, no
        version of PEP 440, or an environment without `packaging` asks, of whose version the parent has judged.
        """
        if self.min_version is None or version is None:
            return None
        try:
            from packaging.version import Version

            below = Version(version) < Version(self.min_version)
        except (ImportError, ValueError):
            return None
        return self.install(f"{self.distribution} {version} is below {self.min_version}") if below else None

    def _too_old_here(self) -> str | None:
        if self.distribution is None or self.min_version is None:
            return None
        return self.why_too_old(environment.own_version(self.distribution))

    def install(self, why: str) -> str:
        """A sentence that says what is missing and how to get it."""
        package, built = self.pip or self.distribution, self.env.get("requirements") is not None
        if self.pip is None and self.min_version is not None:
            package = f"'{self.distribution}>={self.min_version}'"  # pip leaves an older one that is there as it is
        if package is None:
            return f"{why}; {how_to_bring(self.env)} (its YAML names no distribution)"
        if built:
            return f"{why}; its env.requirements must name what brings it ({package})"
        return f"{why}; install it with: pip install {package}"

    def require(self, name: str) -> Any:
        """Import a module of the implementation's library; raises Missing with how to install it."""
        why = self._too_old_here()
        if why is not None:
            raise Missing(why)
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise Missing(self.install(f"{name} cannot be imported ({error})")) from error
        spec = getattr(module, "__spec__", None)
        why = self._only_folder(name, spec) or self._hidden(name, spec)
        if why is not None:
            raise Missing(why)
        return module

    def _only_folder(self, module: str, spec: ModuleSpec | None) -> str | None:
        """Why `module` is no library, or None: a folder of that name passes for a package with Python."""
        folders = None if spec is None or spec.name != module else spec.submodule_search_locations
        # What is a package without a file for Python 3.9 to 3.13 alike, and a list for every other loader
        if type(folders).__name__ != "_NamespacePath":
            return None
        return self.install(f"{module} is only a folder ({next(iter(folders or ['']))})")

    def _hidden(self, module: str, spec: ModuleSpec | None) -> str | None:
        """Why what `module` finds is not the distribution's, or None: one of the same name before it on the path, such
        as flash-attn 2's older flash_attn.cute before flash-attn-4's, would run as that version.
        """
        if self.distribution is None or spec is None or spec.name != module or not spec.has_location:
            return None
        try:
            installed = importlib.metadata.distribution(self.distribution)
            record = installed.read_text("RECORD") or ""
        except (importlib.metadata.PackageNotFoundError, UnicodeDecodeError):
            return None
        path = re.escape(module.replace(".", "/"))
        recorded = re.findall(f"^({path}(?:/__init__)?[.]py),", record, re.MULTILINE)
        # The folders: what is imported may be a compiled file beside the one that is recorded
        folders = {os.path.realpath(os.path.dirname(str(installed.locate_file(one)))) for one in recorded}
        if not folders or os.path.realpath(os.path.dirname(str(spec.origin))) in folders:
            return None
        return (
            f"{module} is {spec.origin}, which hides that of {self.distribution} {installed.version}; "
            "an environment of its own (env) has nothing before it"
        )


def how_to_bring(env: dict[str, Any]) -> str:
    """How to get a module of the user's own, which may be called like a stranger's package, into what `env` says."""
    built = env.get("requirements") is not None
    variable = "env.variables.PYTHONPATH" if built or env.get("python") else "PYTHONPATH"
    other = "what brings it into env.requirements" if built else "install what brings it"
    return f"put its folder into {variable}, or {other}"


def is_absent(module: str) -> bool:
    """Whether an import would not find a module; False also where only that could tell: none is made."""
    try:
        return _found(module)[1] is None
    except (KeyError, ValueError):
        return False


def _found(module: str) -> tuple[str, ModuleSpec | None]:
    """The name down to which a dotted module was looked for, and what is found there, without an import; None for the
    first that is not there. Raises KeyError below a folder without __init__.py, ValueError for __main__.
    """
    name, *below = module.split(".")
    spec = importlib.util.find_spec(name)
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            break
        name = f"{name}.{part}"
        spec = _find(name, list(spec.submodule_search_locations))
    return name, spec


def _find(name: str, folders: list[str]) -> ModuleSpec | None:
    """What an import of a package's module would find; importlib.util.find_spec would import the package."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, folders)
        if spec is not None:
            return spec
    return None


def _unreplayed(case: Case, device: Device, mode: str | None) -> str | None:
    """Why a compile mode's CUDA graphs would never be replayed, or None.

    A backward pass alone runs behind one forward pass whose outputs stay alive, so each is one more warm-up run on top
    of the last (torch 2.6 to 2.13: torch/_inductor/cudagraph_trees.py, CUDAGraphTreeManager._run).
    """
    if device.kind == "cuda" and case.direction == "bwd" and mode in ("reduce-overhead", "max-autotune"):
        return (
            "torch.compile's CUDA graphs replay a backward pass only behind its forward pass; use direction=fwd_bwd or "
            "compile=max_autotune_no_cudagraphs"
        )
    return None
