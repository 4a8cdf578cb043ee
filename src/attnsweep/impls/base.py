"""What an implementation is, and what its YAML may say that it supports.

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
from attnsweep.case import DIRECTIONS, DTYPES, Case
from attnsweep.devices import KINDS, Device
from attnsweep.errors import ConfigError, Missing

LAYOUTS = ("bshd", "bhsd")


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _integers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _requirements(value: Any) -> bool:
    return _texts(value) and all(one.strip() and one.isprintable() for one in value)


def _path(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value.strip() != ""


def _python_version(value: Any) -> bool:
    found = re.fullmatch(r"3\.(\d+)(\.\d+)?t?", value) if isinstance(value, str) else None
    return found is not None and int(found[1]) >= 9


def _version(value: Any) -> bool:
    """Of PEP 440, without epoch and local part; `packaging` is not in every environment that reads a YAML."""
    plain = r"[0-9]+([.][0-9]+)*((a|b|rc)[0-9]+)?([.]post[0-9]+)?([.]dev[0-9]+)?"
    return isinstance(value, str) and re.fullmatch(plain, value) is not None


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _patterns(value: Any) -> bool:
    if not _texts(value):
        return False
    try:
        return all(re.compile(pattern) for pattern in value)
    except re.error:
        return False


def _some_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        return _texts(value) and set(value) <= set(choices)

    return fits, f"a list of any of {', '.join(choices)}"


_BOOL = (_flag, "true or false")

#: What `supports` may restrict, and what each must be; anything it does not name is tried, and the check decides.
SUPPORTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "devices": _some_of(*KINDS),
    "dtypes": _some_of(*DTYPES),
    "head_dims": (_integers, "a list of integers"),
    "head_dim_max": (_number, "a number"),
    "head_dim_v": _BOOL,
    "gqa": _BOOL,
    "causal": _BOOL,
    "window": _BOOL,
    "bias": _BOOL,
    "q_len_ne_kv_len": _BOOL,
    "causal_q_len_ne_kv_len": _BOOL,
    "q_len_max": (_number, "a number"),
    "directions": _some_of(*DIRECTIONS),
    "compile": (_texts, "a list of names"),  # a user's own too
    "min_compute_capability": (_number, "a number such as 8.0"),
    "max_compute_capability": (_number, "a number such as 9.0"),
}
#: Those of them that no case changes.
HARDWARE = ("devices", "min_compute_capability", "max_compute_capability")
ENV: dict[str, tuple[Callable[[Any], bool], str]] = {
    "python": (_path, "the path of an interpreter"),
    "requirements": (_requirements, "a list of lines of a requirements file"),
    "python_version": (_python_version, 'a version in quotes such as "3.11", 3.9 at the oldest'),
    "variables": (lambda value: isinstance(value, dict), "a mapping of names to values"),
}
#: Kernels that must run in a forward and in a backward pass (one of each), and those that must never.
KERNELS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fwd": (_patterns, "a list of regular expressions"),
    "bwd": (_patterns, "a list of regular expressions"),
    "never": (_patterns, "a list of regular expressions"),
}
#: Of an implementation that computes in fewer bits than the case: what that is called, and the least cosine and the
#: largest relative L1 error with which a result is still right.
PRECISION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "class": (
        lambda value: isinstance(value, str) and value.strip() not in ("", "native"),
        "a name such as int8 that is not native",
    ),
    "cosine": (lambda value: _number(value) and 0 < value <= 1, "a number above 0 and up to 1"),
    "rel_l1": (lambda value: _number(value) and value > 0, "a number above 0"),
}
#: Its limits where a YAML names none.
LIMITS = {"cosine": 0.99, "rel_l1": 0.1}

_TYPES: tuple[tuple[str, type[Any], str], ...] = (
    ("distribution", str, "a name"),
    ("pip", str, "what pip installs"),
    ("supports", dict, "a mapping"),
    ("env", dict, "a mapping"),
    ("kernels", dict, "a mapping"),
    ("precision", dict, "null or a mapping"),
)


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
        for key, kinds, what in _TYPES:
            value = impl.get(key)
            if value is not None and (not isinstance(value, kinds) or value == ""):
                raise ConfigError(f"impl {name}: {key} must be {what}, not {value!r}")
        oldest = impl.get("min_version")
        if oldest is not None and not _version(oldest):
            raise ConfigError(f'impl {name}: min_version must be a version in quotes such as "2.1", not {oldest!r}')
        if oldest is not None and impl.get("distribution") is None:
            raise ConfigError(f"impl {name}: min_version goes with distribution, which is not given")
        if impl.get("layout", "bshd") not in LAYOUTS:
            raise ConfigError(f"impl {name}: layout must be one of {', '.join(LAYOUTS)}, not {impl['layout']!r}")
        said = [vars(one).get("framework") for one in cls.__mro__[: cls.__mro__.index(Attention)]]
        own = next((one for one in said if one is not None), None)
        if own is not None and impl.get("framework") not in (None, own):
            raise ConfigError(f"impl {name}: framework must be {own}, as its class says, not {impl['framework']!r}")
        if impl.get("isolation", "fork") not in ("fork", "spawn"):
            raise ConfigError(f"impl {name}: isolation must be fork or spawn, not {impl['isolation']!r}")
        for key, known in (("supports", SUPPORTS), ("env", ENV), ("kernels", KERNELS), ("precision", PRECISION)):
            for entry, value in (impl.get(key) or {}).items():
                if entry not in known:
                    raise ConfigError(f"impl {name}: {key} has no key {entry}; the keys are {', '.join(known)}")
                fits, what = known[entry]
                if value is not None and not fits(value):
                    raise ConfigError(f"impl {name}: {key}.{entry} must be {what}, not {value!r}")
        if impl.get("precision") is not None and impl["precision"].get("class") is None:
            raise ConfigError(f"impl {name}: precision.class must be given: {PRECISION['class'][1]}")

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


def broken_rule(rules: dict[str, Any], case: Case, device: Device, compile_mode: str) -> str | None:
    """The first rule of a YAML's `supports` that a case breaks, as a sentence, or None."""

    def among(key: str, value: Any, what: str) -> str | None:
        allowed = rules.get(key)
        if allowed is None or value in allowed:
            return None
        return f"{what} {value} is not among {', '.join(str(one) for one in allowed)}"

    def denied(key: str, asked: bool, what: str) -> str | None:
        return f"{what} is not supported" if asked and rules.get(key) is False else None

    largest, most_queries = rules.get("head_dim_max"), rules.get("q_len_max")
    oldest, newest = rules.get("min_compute_capability"), rules.get("max_compute_capability")
    capability, devices = device.compute_capability or 0, rules.get("devices")
    found = [
        f"runs on {', '.join(devices)}, not on {device.kind}"
        if devices is not None and device.kind not in devices
        else None,
        among("dtypes", case.dtype, "dtype"),
        among("head_dims", case.head_dim, "head_dim"),
        among("directions", case.direction, "direction"),
        among("compile", compile_mode, "compile mode"),
        f"head_dim {max(case.head_dim, case.head_dim_v)} is above {largest}"
        if largest is not None and max(case.head_dim, case.head_dim_v) > largest
        else None,
        denied("head_dim_v", case.head_dim_v != case.head_dim, "head_dim_v unlike head_dim"),
        denied("gqa", case.group_size > 1, "grouped-query attention"),
        denied("causal", case.effective_causal, "a causal mask"),
        denied("window", case.window is not None, "a window"),
        denied("bias", case.bias != "none", "a bias"),
        denied("q_len_ne_kv_len", case.q_len != case.kv_len, "q_len unlike kv_len"),
        denied(
            "causal_q_len_ne_kv_len",
            case.effective_causal and case.q_len != case.kv_len,
            "a causal mask with q_len unlike kv_len",
        ),
        f"q_len {case.q_len} is above {most_queries}"
        if most_queries is not None and case.q_len > most_queries
        else None,
        f"compute capability {device.compute_capability} is below {oldest}"
        if oldest is not None and device.kind == "cuda" and capability < oldest
        else None,
        f"compute capability {device.compute_capability} is above {newest}"
        if newest is not None and device.kind == "cuda" and capability > newest
        else None,
    ]
    return next((reason for reason in found if reason), None)
