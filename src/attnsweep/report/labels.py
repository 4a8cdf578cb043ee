"""Names for what is compared: the label of an implementation, the device, and which version counts."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from attnsweep.report.boards import told_apart
from attnsweep.report.load import Row
from attnsweep.report.text import line, whole

#: Where a field of a variant is named, by its path in the YAML: kernel_options.BLOCK_M=64.
_FIELD = re.compile(r"(?:^|(?<=,))(?:\w+\.)*\w+(?==)")

_PRERELEASE = frozenset({"a", "b", "c", "rc", "alpha", "beta", "pre", "preview", "dev"})


@dataclass(frozen=True)
class Label:
    """The unit of comparison: an implementation with its variant and compile mode, and `text` to call it by.

    `version` is empty unless all versions are compared. The texts of one report are all different; in them a variant's
    fields lose the path before their name where no two of the implementation have that name.
    """

    impl: str
    variant: str
    compile: str
    version: str
    text: str

    @property
    def in_full(self) -> str:
        """What to call it with the whole paths of its fields."""
        return _text(self.impl, self.variant, self.compile, self.version)

    @property
    def plain(self) -> bool:
        """Whether this is the implementation as it comes: no variant, eager."""
        return not self.variant and self.compile == "eager"


def label_all(rows: list[Row], all_versions: bool) -> list[Label]:
    """The label of each row, in the rows' order."""
    keys = [
        (
            line(row["impl"]) or "unnamed",
            line(row["variant"]),
            line(row["compile"]) or "eager",
            (line(row["impl_version"]) or "no version") if all_versions else "",
        )
        for row in rows
    ]
    texts: dict[tuple[str, str, str, str], str] = {}
    taken: set[str] = set()
    users: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    fields: dict[str, set[str]] = defaultdict(set)
    for impl, variant, _, _ in keys:
        fields[impl].update(_FIELD.findall(variant))
    short = {impl for impl, its in fields.items() if len({_last(field) for field in its}) == len(its)}
    for key in dict.fromkeys(keys):
        impl, variant, compile_mode, version = key
        shown = _FIELD.sub(lambda field: _last(field[0]), variant) if impl in short else variant
        users[_text(impl, shown, compile_mode, version)].append(key)
    # The texts that are one label's own come first: a number never makes another of them.
    for text, same in sorted(users.items(), key=lambda item: len(item[1]) > 1):
        number = 0
        for key in same:
            texts[key] = text
            while len(same) > 1 and (texts[key] == text or texts[key] in taken):
                number += 1
                texts[key] = f"{text} #{number}"
            taken.add(texts[key])
    return [Label(*key, texts[key]) for key in keys]


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _text(impl: str, variant: str, compile_mode: str, version: str) -> str:
    parts = [impl + (f"[{variant}]" if variant else "")]
    if version:
        parts.append(f"@{version}")
    if compile_mode != "eager":
        parts.append(f"({compile_mode})")
    return " ".join(parts)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions by age: 2.9.0rc1 < 2.9.0 < 2.9.0.post1 < 2.10; any text is accepted."""
    key: list[tuple[int, int, str]] = []
    for part in re.findall(r"\d{1,18}|[a-z]+", version.lower()):
        if part.isdecimal():
            key.append((3, int(part), ""))
        else:
            key.append((0 if part in _PRERELEASE else 2, 0, part))
    return (*key, (1, 0, ""))


def newest_versions(rows: list[Row], devices: list[str]) -> list[bool]:
    """Which rows belong to the newest version of their implementation, for each device and case apart.

    A row without a version (the library was missing) gives way to one with a version from the same host.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, (row, device) in enumerate(zip(rows, devices, strict=True)):
        identity = ("impl", "variant", "compile", "scenario", "case")
        groups[(device, *(row[name] for name in identity))].append(index)
    keep = [False] * len(rows)
    for group in groups.values():
        versioned = [index for index in group if rows[index]["impl_version"]]
        hosts = {rows[index]["hostname"] for index in versioned}
        newest = max((version_key(rows[index]["impl_version"]) for index in versioned), default=None)
        for index in group:
            version = rows[index]["impl_version"]
            if version:
                keep[index] = version_key(version) == newest
            else:
                keep[index] = rows[index]["hostname"] not in hosts
    return keep


def device_names(rows: list[Row]) -> list[str]:
    """The device of each row by name, with power limit, SM count, GPU and host where the name alone is not enough.

    A row that does not know them (its library was missing, say) takes those of its GPU, else of its host
    where that has one kind only.
    """
    names = [line(row["device_name"] or row["gpu_name"] or row["device"]) or "unknown device" for row in rows]
    suffixes = [""] * len(rows)
    for column, form in (("power_limit_w", "{} W"), ("sm_count", "{} SMs")):
        kinds: dict[tuple[object, ...], set[str]] = defaultdict(set)
        for row, name in zip(rows, names, strict=True):
            if row[column] is not None:
                value = whole(round(row[column]))
                for key in ((name,), (name, row["hostname"]), (name, row["hostname"], row["gpu_uuid"])):
                    kinds[key].add(value)
        for index, (row, name) in enumerate(zip(rows, names, strict=True)):
            if len(kinds[(name,)]) < 2:
                continue
            own = {whole(round(row[column]))} if row[column] is not None else set()
            for key in ((name, row["hostname"], row["gpu_uuid"]), (name, row["hostname"])):
                own = own or kinds[key]
            suffixes[index] += ", " + form.format(next(iter(own)) if len(own) == 1 else "unknown")
    full = [name + suffix for name, suffix in zip(names, suffixes, strict=True)]
    hosts: dict[str, set[str]] = defaultdict(set)
    for row, name in zip(rows, full, strict=True):
        hosts[name].add(line(row["hostname"]) or "unknown host")
    return [
        f"{name} on {line(row['hostname']) or 'unknown host'}" if len(hosts[kind]) > 1 else name
        for row, kind, name in zip(rows, full, told_apart(rows, full), strict=True)
    ]
