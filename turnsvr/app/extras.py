"""Packages that only some sections of the settings need, and that are not installed."""

from __future__ import annotations


def not_installed(error: ModuleNotFoundError, section: str, extra: str) -> str:
    """What to do about it, for the operator. A module of our own that is missing is no such package: it is raised."""
    if (error.name or "").startswith("turnsvr"):
        raise error
    return (
        f"{section}: the package {error.name} is not installed; pip install 'turnsvr[{extra}]', or leave out {section}"
    )
