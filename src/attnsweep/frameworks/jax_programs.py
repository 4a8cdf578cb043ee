"""Programs of jax.jit, each compiled once, and whether JAX keeps them on disk."""

from __future__ import annotations

from typing import Any, Callable

import jax


class Program:
    """A function under jax.jit, lowered and compiled for its first arguments: it cannot be compiled again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            # compile_s is what compiling takes: nobody is to find it done
            keep_programs(False)
            self._compiled = jax.jit(self._function).lower(*arguments).compile()
            keep_programs(True)
        return self._compiled(*arguments)

    def peak_bytes(self) -> int | None:
        """Arguments, results and what XLA allocates beside them, as it planned them when it compiled, if it says so."""
        plan = self._compiled.memory_analysis()
        if plan is None:
            return None
        held = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        return int(held - plan.alias_size_in_bytes)


class Jitted:
    """An implementation's function to be run under jax.jit; its programs are compiled once for all its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._programs: dict[str, Program] = {}

    def program(self, name: str, function: Callable[..., Any]) -> Program:
        """The program of this name, made of `function` when it is first asked for."""
        return self._programs.setdefault(name, Program(function))


def keep_programs(kept: bool) -> None:
    """Whether programs that are compiled from here on go into JAX's cache on disk, where there is one."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if kept else float("inf"))
