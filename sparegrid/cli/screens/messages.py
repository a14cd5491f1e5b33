"""Errors and advice as a person sees them: a title, a message, the next step."""

from __future__ import annotations

from rich.text import Text

from sparegrid.cli.wording import safe, safe_lines


def error_text(title: str, message: str, hint: str) -> Text:
    """Title in red, then the message, then what to do."""
    text = Text()
    text.append(f"{safe(title)}", style="bold red")
    if message:
        text.append("\n  " + safe_lines(message).replace("\n", "\n  "))
    if hint:
        text.append("\n  " + safe_lines(hint).replace("\n", "\n  "), style="cyan")
    return text


def headline(title: str) -> Text:
    """The bold line above a block."""
    return Text(safe(title), style="bold")


def commands(*rows: tuple[str, str]) -> Text:
    """Commands that the reader may type next, one a line that is never broken, each with what it does."""
    longest = max(len(command) for command, _ in rows)
    text = Text(no_wrap=True, overflow="ignore")
    for at, (command, meaning) in enumerate(rows):
        text.append("\n  " if at else "  ")
        text.append(command, style="cyan")
        if meaning:
            text.append(f"{' ' * (longest - len(command))}   {meaning}")
    return text
