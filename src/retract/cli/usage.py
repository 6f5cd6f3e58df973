"""Errors of a command line as typer raises them: older typers take them from click, newer ones bring their own."""

from __future__ import annotations

import typer

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Options that do not go together. The command that raises it is named by typer."""
LineError: type[Exception] = typer.BadParameter.__mro__[2]
"""Anything that typer finds wrong with a command line."""
