"""The `attnsweep-doctor` command: what this machine has, and which implementations it can run.

Nothing heavy is imported: versions are read from what is installed, and libraries are looked for, not loaded, but for
cupti-python where there is a GPU: what it needs is seen by its import alone, which takes 0.2 s.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from attnsweep import conf_path, devices, environment, impls, interpreters, terminal
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.interpreters import Host
from attnsweep.report.cli import Parser
from attnsweep.report.tables import Cell, Column, Table, to_markdown, to_rich
from attnsweep.report.text import line
from attnsweep.timing import cupti

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

#: Distributions that decide what can be measured and how well, and what one does without, where it can be done without.
_DISTRIBUTIONS = {
    "attnsweep": "it runs from a folder that is not installed",
    "torch": "most implementations need it; install it with: pip install torch",
    "triton": "torch.compile and Triton kernels need it on a GPU",
    "jax": "implementations in JAX need it; install it with: pip install jax",
    "numpy": "every cell needs it; install it with: pip install numpy",
    "cupti-python": "without it nobody sees which kernels ran; install it with: pip install 'attnsweep[cupti]'",
    "uv": "it builds environments from env.requirements; install it with: pip install uv",
}
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """What was found out about an implementation: `available` is yes, no, unknown or "once built", `why` is why not,
    and how to get it.
    """

    name: str
    available: str
    version: str | None
    where: str
    why: str


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is found and return 0; 2 for a mistake in the arguments."""
    try:
        return _run(_parser().parse_args(argv))
    except ConfigError as error:
        print(f"attnsweep-doctor: {line(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnsweep-doctor",
        description="Say what this machine has and which implementations it can run.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-dir", metavar="DIR", help="YAML of your own, as for attnsweep")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, as for an issue or a note")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    folders = conf_path.user_folders(arguments.config_dir)
    for hidden in conf_path.shadowed(folders):
        print(line(hidden), file=sys.stderr)
    found, nvml = gpus()
    tables = [machine(found, nvml), implementations(folders, found[0] if found else devices.cpu())]
    out = terminal.console()
    for table in tables:
        if arguments.markdown:
            out.print(Text(to_markdown(table, level=2)), soft_wrap=True)
        elif out.is_terminal:
            out.print(Text(line(table.title), style="bold"))
            terminal.print_table(out, to_rich(table, out.width))
            out.print()
        else:
            out.print(Text(_plain(table)), soft_wrap=True)
    return 0


def machine(found: Sequence[Device], nvml: str) -> Table:
    """What this machine has: devices, drivers, Python, frameworks; what is not there with how to get it."""
    cpu = devices.cpu()
    rows = [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("CPU", f"{cpu.name}, {os.cpu_count()} processors, {_gib(cpu.memory_bytes)}"),
    ]
    for index, gpu in enumerate(found):
        limit = "" if gpu.power_limit_w is None else f", {gpu.power_limit_w:.0f} W"
        capability = f"compute capability {gpu.compute_capability}"
        rows.append((f"GPU {index}", f"{gpu.name}, {gpu.uuid}, {_gib(gpu.memory_bytes)}{limit}, {capability}"))
    rows.append(("NVML", nvml))
    rows.append(("Python", f"{platform.python_version()}, {sys.executable}"))
    for name, without in _DISTRIBUTIONS.items():
        rows.append((name, _distribution(name, without, on_gpu=bool(found))))
    return Table(
        "This machine", (), (Column(""), Column("found")), tuple((Cell(key), Cell(text)) for key, text in rows)
    )


def _distribution(name: str, without: str, on_gpu: bool) -> str:
    """The version of one of _DISTRIBUTIONS, or what one does without it."""
    version = environment.own_version(name)
    if version is None:
        return f"not installed: {without}"
    if name == "cupti-python" and on_gpu:  # on others it may fail for want of a driver
        try:
            cupti.load()
        except cupti.CuptiFailed as error:
            return f"{version}, but {error}"
    return version


def gpus() -> tuple[list[Device], str]:
    """The GPUs that a sweep may use, and what there is to say of NVML, which finds them."""
    import pynvml

    try:
        pynvml.nvmlInit()
        found = devices.visible_gpus()
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
        hidden = pynvml.nvmlDeviceGetCount() - len(found)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return [], f"not available ({error}): no GPU is used, and nothing is read of clocks and power"
    said = f"driver {driver}, for CUDA up to {cuda // 1000}.{cuda % 1000 // 10}"
    return found, f"{said}; CUDA_VISIBLE_DEVICES hides {hidden} of the GPUs" if hidden else said


def implementations(folders: Sequence[Path], device: Device) -> Table:
    """Each implementation of ours and of `folders`: whether `device` can run it, its version, or why not."""
    rows = []
    for name, impl in composed(folders):
        finding = _broken(name, impl) if isinstance(impl, str) else look(name, impl, device)
        rows.append(
            (
                Cell(finding.name, bold=finding.available == "yes"),
                Cell(finding.available),
                Cell(finding.version or "-"),
                Cell(finding.where),
                Cell(finding.why),
            )
        )
    titles = ("implementation", "available", "version", "environment", "why not, and how to get it")
    notes = (f"On {device.name}. A library counts as available where it is found; only a sweep shows that it works.",)
    return Table("Implementations", notes, tuple(Column(title) for title in titles), tuple(rows))


def composed(folders: Sequence[Path]) -> list[tuple[str, dict[str, Any] | str]]:
    """Each option of the group impl with its composed YAML, or with what is wrong with that."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from attnsweep import launching

    conf_path.register(folders)
    try:
        with initialize_config_dir(str(conf_path.conf_folder()), version_base="1.3", job_name="attnsweep"):
            loader = GlobalHydra.instance().config_loader()
            config = loader.load_configuration("config", ["~impl"], RunMode.MULTIRUN)
            return _compose(loader, launching.options(loader, config)("impl"))
    finally:
        conf_path.register(())


def _compose(loader: ConfigLoader, names: Sequence[str]) -> list[tuple[str, dict[str, Any] | str]]:
    """All at once, which is three times as fast as one by one; in halves where one of them is wrong."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from attnsweep import compose
    from attnsweep.messages import sentence

    try:
        _, found = compose.combinations(loader, "config", [[f"impl={name}"] for name in names])
    except (HydraException, OmegaConfBaseException, YAMLError, ConfigError) as error:
        if len(names) == 1:
            return [(names[0], sentence(error))]
        half = len(names) // 2
        return _compose(loader, names[:half]) + _compose(loader, names[half:])
    return [(name, one.impl) for name, one in zip(names, found, strict=True)]


def look(name: str, impl: dict[str, Any], device: Device) -> Finding:
    """What can be found out about an implementation without importing its library."""
    try:
        impls.bind(impl)
        where = interpreters.host(impl, "fork", device.kind)
        (version,), silent = interpreters.versions([impl], [where])
    except ConfigError as error:
        return _broken(name, str(error))
    hardware = impls.why_not_on(impl, device)
    library = _why_missing(impl, replace(where, missing=silent.get(where)), version, device.kind)
    whys = [why for why in (hardware, library) if why is not None]
    available, described = "no" if whys else "yes", "own"
    if where.recipe is not None:
        described = f"{where.recipe.packages} packages, Python {where.recipe.python_version}"
        if not where.recipe.built and not whys:
            available, whys = "once built", ["the first sweep with it builds its environment"]
    elif not where.own:
        described = where.python
    if available == "yes" and not where.own and impl.get("distribution") is None:
        available, whys = "unknown", ["its YAML names no distribution to look for in its environment"]
    return Finding(name, available, version, described, "; ".join(whys))


def _why_missing(impl: dict[str, Any], where: Host, version: str | None, kind: str) -> str | None:
    if where.own and importlib.util.find_spec(where.framework) is None:
        return f"No module named {where.framework!r}; install it with: pip install {where.framework}"
    why = interpreters.why_missing(impl, where, version, kind)
    unbuilt = where.recipe is not None and not where.recipe.built
    if why is None and not (where.own or unbuilt) and impl.get("distribution") is not None and version is None:
        return impls.build(impl).install(f"{impl['distribution']} is not installed in its environment")
    return why


def _broken(name: str, why: str) -> Finding:
    return Finding(name, "no", None, "-", why)


def _gib(number: int | None) -> str:
    return "memory unknown" if number is None else f"{number / _GIB:.0f} GiB"


def _plain(table: Table) -> str:
    """The table as columns of text, for a file or a pipe."""
    rows = [
        [line(column.title) for column in table.columns],
        *([line(cell.text) for cell in row] for row in table.rows),
    ]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    body = [_padded(row, widths) for row in rows if any(row)]
    return "\n".join([line(table.title), *map(line, table.notes), "", *body, ""])


def _padded(row: Sequence[str], widths: Iterable[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
