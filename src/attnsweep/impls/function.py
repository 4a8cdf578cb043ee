"""The general adapter: a library's function of q, k and v, by nothing but YAML."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.dotted import is_dotted
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls.base import Attention


class FunctionAttention(Attention):
    """A library's function of q, k and v, described by YAML alone.

    It is called as function(q, k, v, **keywords): `arguments` maps the library's keyword to a field or property of
    the case (a None is left out, so that the library's default stands; `bias` is the bias array), `constants` maps
    it to a literal. `output` is the index of the output where the library returns a tuple, `first` where only some of
    its versions return one and the output comes first in it, else null. `unbounded` is what the library writes for the
    side of a window that has no bound.
    """

    def __init__(
        self,
        *,
        function: str,
        arguments: dict[str, str] | None = None,
        constants: dict[str, Any] | None = None,
        output: int | str | None = None,
        unbounded: int | None = -1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.module, _, self.function = function.rpartition(".")
        self.arguments = arguments or {}
        self.constants = constants or {}
        self.output = output
        self.unbounded = unbounded

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        name, function, output = impl["name"], impl["function"], impl.get("output")
        for key, kind, what in (
            ("arguments", dict, "a mapping"),
            ("constants", dict, "a mapping"),
            ("unbounded", int, "an integer"),
        ):
            if impl.get(key) is not None and not isinstance(impl[key], kind):
                raise ConfigError(f"impl {name}: {key} must be {what} or null, not {impl[key]!r}")
        if output not in (None, "first") and not isinstance(output, int):
            raise ConfigError(f"impl {name}: output must be an index, first or null, not {output!r}")
        if not is_dotted(function):
            raise ConfigError(f"impl {name}: function must be package.module.function, not {function!r}")
        public = {*dir(Case), *Case.__dataclass_fields__}
        fields = [one for one in public if not one.startswith("_") and not callable(getattr(Case, one, None))]
        for keyword, field in (impl.get("arguments") or {}).items():
            if field not in fields:
                raise ConfigError(
                    f"impl {name}: arguments.{keyword} is {field!r}, which is no field of a case; the fields are "
                    f"{', '.join(sorted(fields))}"
                )

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        passed = set(self.arguments.values())
        if case.effective_causal and not passed & {"causal", "effective_causal", "bounds"}:
            return f"{self.name}'s YAML passes no causal mask"
        if case.window is not None and not passed & {"window", "bounds"}:
            return f"{self.name}'s YAML passes no window"
        if case.bias != "none" and "bias" not in passed:
            return f"{self.name}'s YAML passes no bias"
        return None

    def loaded(self) -> Any:
        """The module that has the function; raises Missing."""
        assert self.module is not None
        return self.require(self.module)

    def why_lacking(self, library: Any) -> str:
        """That the loaded module has no such function, and what to do about it."""
        why = f"{library.__name__} has no {self.function}"
        if self.pip is None and self.distribution is None:
            return f"{why}; function in its YAML must name what that module has"
        return self.install(f"{why} in this version")

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        library = self.loaded()
        function = getattr(library, self.function, None)
        if function is None:
            raise Missing(self.why_lacking(library))
        keywords = dict(self.constants)
        bias_keyword = ""
        for keyword, field in self.arguments.items():
            if field == "bias":
                bias_keyword = keyword
            elif field in ("window", "bounds") and getattr(case, field) is not None:
                keywords[keyword] = tuple(self.unbounded if side < 0 else side for side in getattr(case, field))
            elif getattr(case, field) is not None:
                keywords[keyword] = getattr(case, field)
        output = self.output

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            if bias is None:
                result = function(q, k, v, **keywords)
            else:
                result = function(q, k, v, **{bias_keyword: bias}, **keywords)
            if output is None or (output == "first" and not isinstance(result, tuple)):
                return result
            return result[0 if output == "first" else output]

        return call
