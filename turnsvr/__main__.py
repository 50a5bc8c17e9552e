"""`python -m turnsvr` is `turnsvr`."""

from __future__ import annotations

from turnsvr.cli import main

main(prog_name="turnsvr")
