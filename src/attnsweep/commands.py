"""Lines for a shell: the one that measures a cell again, and the one that goes on with a sweep."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import conf_path
from attnsweep.overrides import literal
from attnsweep.schema import Check

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.schema import Settings

#: Hydra's flags whose next word is a folder of the user's own YAML.
_FOLDER_FLAGS = ("--config-dir", "-cd")


def of_cell(settings: Settings, combination: Combination, fields: Mapping[str, Any], replicate: int) -> str:
    """The line that measures this cell again, and no other, into the same sweep; `fields` are its problem's."""
    pins: dict[str, Any] = {"timing.replicates": replicate + 1, "seed": settings.seed, "name": settings.name}
    if replicate:
        pins["replicate"] = replicate
    if settings.output_dir != "outputs":
        pins["output_dir"] = settings.output_dir
    if settings.device != "auto":
        pins["device"] = settings.device
    if settings.gpus is not None:
        pins["gpus"] = settings.gpus
    if settings.isolation != "fork":
        pins["isolation"] = settings.isolation
    deadlines = {key: value for key, value in asdict(settings.pool).items() if key != "grace_s" and value is not None}
    pins.update({f"pool.{key}": value for key, value in deadlines.items()})
    changed = {key: value for key, value in asdict(settings.check).items() if value != getattr(Check(), key)}
    pins.update({f"check.{key}": value for key, value in changed.items()})
    pins["force"] = True
    choices = {"study": settings.study, **combination.choices}
    # All fields are said, and win over the tiny ones
    typed = [line for line in combination.overrides if not line.startswith("scenario.tiny.")]
    return _user_folders() + shell_line(choices, fields, typed, pins, _config_flags(sys.argv))


def _user_folders() -> str:
    """What the shell line begins with where the user's own YAML was found through the environment."""
    parts = [part for part in os.environ.get(conf_path.VARIABLE, "").split(os.pathsep) if part]
    folders = os.pathsep.join(str(Path(part).expanduser().absolute()) for part in parts)
    return f"{conf_path.VARIABLE}={shlex.quote(folders)} " if folders else ""


def _config_flags(argv: Sequence[str]) -> list[str]:
    """Hydra's flags for a folder of the user's own YAML, as they were given to this process."""
    flags = []
    for index, word in enumerate(argv):
        if word in _FOLDER_FLAGS and index + 1 < len(argv):
            flags += [word, argv[index + 1]]
        elif word.startswith("--config-dir="):
            flags.append(word)
    return flags


def shell_line(
    choices: Mapping[str, str | None],
    fields: Mapping[str, Any],
    overrides: Sequence[str],
    pins: Mapping[str, Any],
    flags: Sequence[str] = (),
) -> str:
    """One line: the chosen option of each group, the scenario's fields, other overrides, and `pins`.

    `fields` and `pins` stand in for what `overrides` says of the same key. Hydra's flags come last.
    """
    values = {**{f"scenario.{key}": value for key, value in fields.items()}, **pins}
    # A key that was added with + must be added again
    added = {key: typed for typed in overrides if (key := typed.partition("=")[0].lstrip("+")) in values}
    words = [f"{group}={literal(option)}" for group, option in choices.items() if option is not None]
    words += [text for text in overrides if text not in added.values()]
    for key, value in values.items():
        plus = "+" * (len(added.get(key, "")) - len(added.get(key, "").lstrip("+")))
        words.append(f"{plus}{key}={literal(value)}")
    return shlex.join(["attnsweep", *words, *flags])


def go_on(argv: Sequence[str], name: str, settled: Mapping[str, bool] | None = None) -> str:
    """The line that goes on with this sweep: the one that started it, and its name.

    `settled` holds the settings that opened cells again, `force` and `rerun`, and whether they were on. What they
    opened has no record any more, so they are dropped, or switched off where a study's YAML had set them.
    """
    settled = settled or {}
    words = ["attnsweep", *argv[1:]]
    typed = {
        index: words[index].partition("=")[0].lstrip("+") for index in range(len(words)) if _is_override(words, index)
    }
    added = [] if "name" in typed.values() else [f"name={name}"]
    off = {"force": "force=false", "rerun": "rerun=[]"}
    added += [off[key] for key, was_on in settled.items() if was_on and key not in typed.values()]
    # Overrides stand together, flags before or after them
    last = max(typed, default=0)
    words[last + 1 : last + 1] = added
    return shlex.join(word for index, word in enumerate(words) if typed.get(index) not in settled)


def _is_override(words: Sequence[str], index: int) -> bool:
    after_a_folder_flag = index > 0 and words[index - 1] in _FOLDER_FLAGS
    return "=" in words[index] and not words[index].startswith("-") and not after_a_folder_flag
