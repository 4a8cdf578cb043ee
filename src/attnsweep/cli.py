"""The `attnsweep` command: hand over to Hydra, and turn every mistake into one sentence and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from attnsweep.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

FULL_ERROR = "HYDRA_FULL_ERROR"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `attnsweep` with `argv`; returns the exit code: the sweep's, 2 for a mistake, 130 for Ctrl-C, 143 for
    SIGTERM, 129 for SIGHUP.

    Raises SystemExit(0) where Hydra prints help.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback of a mistake.
    """
    try:
        with _interrupting() as over:
            code = _main(list(sys.argv[1:] if argv is None else argv))
            over(code)
            return code
    except KeyboardInterrupt as interrupt:
        # Ctrl-C, importing included; or a task of another launcher whose sweep a signal ended, with its exit code
        return int(interrupt.args[0]) if interrupt.args else 130


#: What no exception may cut short: callbacks of an import swallow it, now and then. The frozen modules call themselves
#: by the names in importlib once that is imported.
_UNDISTURBED = ("_frozen_importlib", "_frozen_importlib_external", "importlib", "weakref")
#: A signal that comes there is taken up again after this many seconds; and one that came elsewhere, should a destructor
#: have swallowed what it raised and all go on as if nobody had asked.
_AGAIN_S, _SWALLOWED_S = 0.01, 0.5


@contextmanager
def _interrupting() -> Iterator[Callable[[int], None]]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt meanwhile: what is being built or asked is ended too.

    One that comes in the middle of what is _UNDISTURBED waits until that is over. After it no other is heard, nor after
    one that the sweep itself heard (it is told the exit code): the process ends. One that is ignored, or that somebody
    else handles, is left alone.
    """
    asked = alarms = None

    def over(code: int) -> None:
        nonlocal asked
        if asked is None and code > 128:
            asked = code - 128

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal asked, alarms
        if asked is None:
            asked = number
        elif number != signal.SIGALRM:
            return
        if alarms is None:
            alarms = signal.signal(signal.SIGALRM, handler)
        wait = _undisturbed(frame)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S if wait else _SWALLOWED_S)
        if not wait:
            raise KeyboardInterrupt(128 + asked)

    main_thread = threading.current_thread() is threading.main_thread()
    ours = {
        number: before
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if main_thread and (before := signal.getsignal(number)) in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in ours:
        signal.signal(number, handler)
    try:
        yield over
    finally:
        for number, before in ours.items():
            signal.signal(number, before if asked is None else signal.SIG_IGN)
        if alarms is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarms)
        if asked is not None and _interrupted(sys.exc_info()[1]):
            raise KeyboardInterrupt(128 + asked) from None


def _interrupted(error: BaseException | None) -> bool:
    """Whether it is a KeyboardInterrupt, or hides one: what tidies up after that may fail on what was not set yet."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _undisturbed(frame: FrameType | None) -> bool:
    """Whether a signal that came in this frame has to wait."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _UNDISTURBED or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _main(argv: list[str]) -> int:
    if "--version" in argv:
        import importlib.metadata

        print(f"attnsweep {importlib.metadata.version('attnsweep')}")
        return 0
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from attnsweep import launching
    from attnsweep.messages import PLAIN, of_hydra, sentence

    launching.exit_codes.clear()
    launching.command_pid = os.getpid()
    wanted = os.environ.get(FULL_ERROR)
    # With it Hydra lets exceptions through; without it Hydra prints them itself and exits with 1.
    os.environ[FULL_ERROR] = "1"
    try:
        _hydra(argv)
    except (HydraException, OmegaConfBaseException, YAMLError, ConfigError, *PLAIN) as error:
        if _interrupted(error) or (isinstance(error, PLAIN) and not of_hydra(error)):
            raise
        if wanted == "1":
            import traceback

            traceback.print_exc()
        print(f"attnsweep: {sentence(error)}", file=sys.stderr)
        return 2
    finally:
        if wanted is None:
            os.environ.pop(FULL_ERROR, None)
        else:
            os.environ[FULL_ERROR] = wanted
    return max(launching.exit_codes, default=0)


def task(cfg: DictConfig) -> int:
    """Run one combination and return its exit code: what launchers other than ours call.

    A mistake is said here and returned as 2, so that it costs this combination and not the others.
    """
    from attnsweep import launching

    try:
        return launching.task(cfg)
    except ConfigError as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 2


def _hydra(argv: Sequence[str]) -> None:
    """What `hydra.main` does, with arguments of ours instead of sys.argv, which stays as it was typed."""
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from attnsweep import conf_path

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # argparse would print its usage and exit
    # Intermixed: `impl=a -m scenario=b` is understood, which Hydra's own parsing refuses.
    args, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError(f"there is no flag {unknown[0]}; attnsweep -h says which there are")
    folders = conf_path.user_folders(args.config_dir)
    for line in conf_path.shadowed(folders):
        print(line, file=sys.stderr)
    conf_path.register(folders)
    args.config_dir = None  # it is among `folders` now, ahead of those of the environment
    _arrange(args)
    version.setbase("1.3")
    config_path, config_name = str(conf_path.conf_folder()), "config"
    with warnings.catch_warnings():
        # A folder that is not there, or a setting without effect: a mistake, if Hydra only warns of it
        warnings.filterwarnings("error", category=UserWarning, module=r"hydra\.")
        if args.cfg and not args.help:
            args.overrides = _shown(args, args.config_path or config_path, args.config_name or config_name)
        _run_hydra(
            args=args,
            args_parser=parser,
            task_function=task,
            config_path=config_path,
            config_name=config_name,
        )


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; attnsweep -h says which flags there are")


def _shown(args: argparse.Namespace, config_path: str, config_name: str) -> list[str]:
    """The overrides of which Hydra composes what --cfg shows: those of the one job that a sweep would make of them."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import (
        create_automatic_config_search_path,
        detect_calling_file_or_module_from_task_function,
    )
    from hydra.core.global_hydra import GlobalHydra

    from attnsweep import launching

    where = detect_calling_file_or_module_from_task_function(task)
    search_path = create_automatic_config_search_path(*where, config_path)
    hydra = Hydra.create_main_hydra2(task_name="cli", config_search_path=search_path)
    try:
        return launching.shown(hydra.config_loader, config_name, args.overrides)
    finally:
        GlobalHydra.instance().clear()


def _arrange(args: argparse.Namespace) -> None:
    """Make every way of calling that measures the same, and leave what is measured to the sweeper."""
    from attnsweep.overrides import deferred, parse

    if args.help:
        args.overrides = ["~impl"]  # the help is the same for all, and impl has no default to compose
        return
    if args.hydra_help or args.info or args.shell_completion:
        return
    overrides = parse(args.overrides)
    if args.cfg:
        return
    args.overrides = [deferred(one) for one in overrides]
    args.run, args.multirun = False, True
