"""``python -m splice.models list`` and ``... fetch NAME``: which models there are, and their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from splice.errors import RequestError
from splice.models.registry import EMBEDDED_MODELS, find_model
from splice.models.vace.presets import PRESETS
from splice.models.weights import fetch, missing_files, read_lock, repositories_of, split_pin
from splice.settings import settings

app = typer.Typer(help="Transition models and their weights.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """Every model: what it needs, its licence, whether its weights are here, and whether it runs on this machine."""
    table = Table(Column("model", no_wrap=True), "weights (bf16)", "needs", "licence", "fetched", "runs here")
    for name in EMBEDDED_MODELS:
        table.add_row(name, "none", "a CPU", "-", "-", "yes")
    with _refusing():
        fetched = read_lock().repositories
        for name, preset in PRESETS.items():
            needed = repositories_of(preset)
            problems = [each for repository, files in needed.items() for each in missing_files(repository, files)]
            size = f"{preset.weights_gb + preset.text_encoder_gb:.0f} GB"
            is_here = "no" if problems else "yes"
            table.add_row(name, size, "a CUDA GPU", preset.licence, is_here, _why_not(name) or "yes")
        for repository in sorted(
            fetched.keys() - {split_pin(each)[0] for preset in PRESETS.values() for each in repositories_of(preset)}
        ):
            size = f"{sum(file.size_bytes for file in fetched[repository].files.values()) / 1e9:.0f} GB"
            is_here = "no" if missing_files(repository) else "yes"
            is_writer = repository == split_pin(settings().prompt_model)[0]
            runs = "for enhance_prompt" if is_writer else _why_not(repository) or "yes"
            table.add_row(repository, size, "a CPU", "see the hub", is_here, runs)
    Console().print(table)


@app.command("fetch")
def fetch_weights(
    name: Annotated[str, typer.Argument(help="A model of the list, or a repository of the hub: owner/name[@commit].")],
) -> None:
    """Download a model's weights; resumes where it was cut, and checks every file."""
    with _refusing():
        for line in fetch(name):
            typer.echo(line)


@contextmanager
def _refusing() -> Iterator[None]:
    """Ends the program with what is wrong."""
    try:
        yield
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _why_not(name: str) -> str:
    try:
        find_model(name)
    except RequestError as error:
        return f"no: {str(error).partition('; ')[0].removeprefix(f'model {name} ')}"
    return ""


if __name__ == "__main__":
    app()
