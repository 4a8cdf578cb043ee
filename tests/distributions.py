"""Distributions that are installed as far as importlib.metadata can see."""

from pathlib import Path


def installed(site: Path, name: str, version: str) -> Path:
    """Make one in a folder of the path, and return where its metadata are."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info
