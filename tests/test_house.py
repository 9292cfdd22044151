"""The rules of the house bite: imports go one way, and the core runs without what only a GPU machine has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FORBIDDEN = [
    ("splice/new.py", "import prefect\n"),
    ("splice/new.py", "from tasks.steps import prepare_clip\n"),
    ("splice/new.py", "from flows.join_clips import join_clips\n"),
    ("splice/new.py", "import av\n"),
    ("splice/new.py", "import torch\n"),
    ("splice/models/new.py", "from diffusers import WanVACEPipeline\n"),
    ("splice/media/new.py", "import decord\n"),
    ("splice/media/new.py", "from prefect import task\n"),
    ("tasks/new.py", "from flows.join_clips import join_clips\n"),
    ("tasks/new.py", "import av\n"),
    ("flows/new.py", "import av\n"),
]


@pytest.mark.parametrize(("file", "line"), FORBIDDEN)
def test_an_import_against_the_rules_is_found(file: str, line: str) -> None:
    assert "TID25" in ruff(file, line)


def test_imports_by_the_rules_are_let_through() -> None:
    assert "TID25" not in ruff("splice/media/new.py", "import av\n")
    assert "TID25" not in ruff("tasks/new.py", "from prefect import task\nfrom splice.plan import plan_timeline\n")
    assert "TID25" not in ruff("splice/models/new.py", "def load():\n    import torch\n    return torch\n")


def ruff(file: str, source: str) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", file, "-"]
    return subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True).stdout


def test_the_core_imports_without_prefect_torch_or_diffusers() -> None:
    program = (
        "import sys; import splice.plan, splice.media, splice.transition, splice.report, splice.contact_sheet; "
        "from splice.models import find_model; find_model('flow_morph'); "
        "print(sorted({'prefect', 'torch', 'decord', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
