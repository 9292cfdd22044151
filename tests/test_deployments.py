"""What a fleet is made of: prefect.yaml, the bootstrap, a fleet on this machine, clean-up, images and manifests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import yaml
from prefect import flow
from prefect.automations import EventTrigger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Pending
from prefect_aws import AwsCredentials, S3Bucket
from typer.testing import CliRunner

from deployments import clean_up, fleet
from deployments.bootstrap import RUNNING, TAG, automations, bootstrap, ensure_automation
from tests.conftest import ROOT, talking_to
from tests.postgres import run_postgres

DEPLOYMENTS = {
    f"{flow}/{each['name']}": each
    for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for flow in [Path(each["entrypoint"].partition(":")[0]).stem.replace("_", "-")]
}
DOCKERFILES = [ROOT / "deployments" / f"{name}.Dockerfile" for name in ("orchestrator", "gpu-worker")]
YAML_RULES = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"


@dataclass(frozen=True)
class Fleet:
    folder: Path
    results: Path
    api_url: str
    environment: dict[str, str]
    said: str

    def run(self, *module: str, expect: int = 0) -> str:
        """What `python -m module ...` prints, with this fleet's server as Prefect's."""
        return run(*module, environment={**self.environment, "PREFECT_API_URL": self.api_url}, expect=expect)


@pytest.fixture(scope="module")
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`make up` on Postgres, in a folder and at a port of its own; this process talks to its server as well."""
    with run_postgres() as url:
        yield from run_fleet(tmp_path_factory.mktemp("fleet"), url)


def run_fleet(folder: Path, database_url: str) -> Iterator[Fleet]:
    environment = {**fleet_environment(folder / "home"), "DATABASE_URL": database_url}
    results = folder / "results"
    command = ("deployments.fleet", "up", "--folder", str(folder), "--results", str(results))
    try:
        said = run(*command, environment=environment)
        api_url = f"http://127.0.0.1:{environment['PREFECT_SERVER_API_PORT']}/api"
        with talking_to({PREFECT_API_URL: api_url}):
            yield Fleet(folder, results, api_url, environment, said)
    finally:
        run("deployments.fleet", "down", "--folder", str(folder), environment=environment)


@pytest.fixture(scope="module")
def deployed(own_fleet: Fleet) -> Fleet:
    own_fleet.run("prefect", "--no-prompt", "deploy", "--all")
    return own_fleet


def fleet_environment(home: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "DATABASE_URL")}
    return {**inherited, "PREFECT_HOME": str(home), "PREFECT_SERVER_API_PORT": str(port)}


def run(*module: str, environment: dict[str, str], expect: int = 0) -> str:
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    said = done.stdout + done.stderr
    assert done.returncode == expect, f"{' '.join(module)} ended with status {done.returncode}:\n{said}"
    return said


def invoke(app: typer.Typer, *options: str, expect: int = 0) -> str:
    """What a command of ours prints, run in this process."""
    done = CliRunner().invoke(app, options)
    assert done.exit_code == expect, done.output
    return str(done.output)


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def read(flow_run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run.id)


def state_name(flow_run: FlowRun) -> str:
    state = read(flow_run).state
    return state.name if state and state.name else ""


def outcomes(lines: Iterator[str]) -> set[str]:
    return {line.rpartition(": ")[2] for line in lines}


def test_up_starts_a_server_and_a_worker_of_each_pool(own_fleet: Fleet) -> None:
    assert f"export PREFECT_API_URL={own_fleet.api_url}" in own_fleet.said
    assert set(fleet.parts(own_fleet.folder)) == {"server", "cpu", "control", "gpu"}
    with get_client(sync_client=True) as client:
        assert {pool: len(client.read_workers_for_work_pool(pool)) for pool in ("cpu", "control", "gpu")} == {
            "cpu": 1,
            "control": 1,
            "gpu": 1,
        }
    assert "is up already" in invoke(fleet.app, "up", "--folder", str(own_fleet.folder))
    assert invoke(fleet.app, "url", "--folder", str(own_fleet.folder)).strip() == own_fleet.api_url
    invoke(fleet.app, "status", "--folder", str(own_fleet.folder))


def test_bootstrap_changes_only_what_differs(own_fleet: Fleet, tmp_path: Path) -> None:
    assert outcomes(bootstrap(str(own_fleet.results))) == {"left alone"}

    with get_client(sync_client=True) as client:
        template = client.read_work_pool("cpu").base_job_template
        template["variables"]["properties"]["env"]["default"]["MINE"] = "1"
        client.update_work_pool("cpu", WorkPoolUpdate(base_job_template=template, concurrency_limit=7))
        assert outcomes(bootstrap(str(own_fleet.results))) == {"left alone"}

        moved = list(bootstrap(str(tmp_path)))
        assert [line for line in moved if line.endswith("changed")] == [f"results in {tmp_path}: changed"]
        assert outcomes(bootstrap()) == {"left alone"}, "an upgrade without the variable finds the records"
        assert outcomes(bootstrap(str(own_fleet.results))) == {"left alone", "changed"}
        pool = client.read_work_pool("cpu")
    assert pool.base_job_template["variables"]["properties"]["env"]["default"]["MINE"] == "1"
    assert pool.concurrency_limit == 7


def test_results_on_s3_use_a_credentials_block_and_leave_its_secrets_alone(
    own_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    AwsCredentials(aws_access_key_id="mine", aws_secret_access_key="secret").save("join-clips")
    monkeypatch.setenv("JOIN_CLIPS_S3_ENDPOINT_URL", "http://127.0.0.1:8333")
    try:
        assert "results in s3://bucket/a/b: created" in list(bootstrap("s3://bucket/a/b"))
        assert outcomes(bootstrap("s3://bucket/a/b")) == {"left alone"}
    finally:
        assert "changed" in outcomes(bootstrap(str(own_fleet.results)))

    block: Any = S3Bucket.load("join-clips-results")
    assert (block.bucket_name, block.bucket_folder, block.credentials.aws_access_key_id) == ("bucket", "a/b", "mine")
    assert block.credentials.aws_client_parameters.endpoint_url == "http://127.0.0.1:8333"
    assert block.credentials.aws_secret_access_key.get_secret_value() == "secret"


def test_a_sign_of_life_that_an_automation_expects_begins_its_count_anew() -> None:
    """Prefect would lose it on a busy SQLite, where it reads first and then counts: runs that live ended as Crashed."""
    for automation in automations():
        assert isinstance(automation.trigger, EventTrigger)
        signs = {f"prefect.flow-run.{name}" for name in RUNNING}
        assert signs & automation.trigger.expect <= automation.trigger.after, automation.name


def test_bootstrap_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    said = run("deployments.bootstrap", environment=fleet_environment(tmp_path), expect=2)
    assert "make up" in said and "PREFECT_API_URL" in said


@pytest.mark.usefixtures("deployed")
def test_every_deployment_is_registered_as_prefect_yaml_says() -> None:
    for name, wanted in DEPLOYMENTS.items():
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(name)
        assert deployment.work_pool_name == wanted["work_pool"]["name"]
        assert deployment.tags == [TAG], "the automations look after runs with this tag"
        assert deployment.description
        known = set(deployment.parameter_openapi_schema["properties"])
        given = [wanted.get("parameters", {}), *(each["parameters"] for each in wanted.get("schedules", []))]
        assert known >= {parameter for parameters in given for parameter in parameters}
    assert deployment.name == "nightly"
    (schedule,) = deployment.schedules
    assert not schedule.active, "a fresh fleet has no source yet, and would fail every night"
    assert (schedule.slug, schedule.schedule.cron, schedule.schedule.timezone) == (
        "nightly",
        "0 2 * * *",
        "Europe/Berlin",
    )
    assert deployment.global_concurrency_limit.limit == 1
    assert deployment.concurrency_options.collision_strategy == "CANCEL_NEW"


def test_a_run_on_the_fleet_leaves_its_records_where_bootstrap_said(
    deployed: Fleet, numbered_clips: list[Path], tmp_path: Path
) -> None:
    parameters = {
        "clip_list": [{"url": str(clip)} for clip in numbered_clips[:2]],
        "run_id": "on-the-fleet",
        "model": "crossfade",
        "gap_frame_count": 5,
        "output_base_dir": str(tmp_path),
    }
    deployed.run("prefect", "deployment", "run", "join-clips/prod", "--params", json.dumps(parameters), "--watch")
    assert (tmp_path / "join_clips_run_on-the-fleet" / "join_0" / "joined_output.mp4").exists()
    assert (deployed.results / "join-clips" / "on-the-fleet" / "result").exists()


def test_clean_up_removes_what_is_idle_old_and_without_a_run(own_fleet: Fleet) -> None:
    names = ["join-clips:idle", "join-clips:held", "join-clips:waited-for", "another-team"]
    with get_client(sync_client=True) as client:
        for name in names:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        client.increment_concurrency_slots(["join-clips:held"], slots=1, mode="concurrency")
        client.create_flow_run(flow(lambda: None, name="waits"), tags=["run_id:waited-for"], state=Pending())

        def left() -> set[str]:
            return {limit.name for limit in client.read_global_concurrency_limits(limit=200)} & set(names)

        assert "idle" not in invoke(clean_up.app) and left() == set(names), "none is a week old"
        assert "would remove join-clips:idle" in invoke(clean_up.app, "--older-than-days", "0", "--dry-run")
        assert left() == set(names)
        invoke(clean_up.app, "--older-than-days", "0")
        assert left() == set(names) - {"join-clips:idle"}


def test_runs_that_lost_their_process_and_its_worker_are_ended_and_down_ends_the_rest(
    own_fleet: Fleet, tmp_path: Path
) -> None:
    folder = own_fleet.folder
    with get_client(sync_client=True) as client:
        # Longer than from one heartbeat to the next: those that live must not be ended, however slow the machine is.
        for automation in automations(silence=timedelta(seconds=45), start=timedelta(seconds=45)):
            assert ensure_automation(client, automation) == "changed"
    (tmp_path / "sleeper.py").write_text(
        "import time\nfrom prefect import flow\n\n@flow\ndef sleeper():\n    time.sleep(600)\n"
    )
    sleeper: Any = flow.from_source(str(tmp_path), "sleeper.py:sleeper")
    sleeper.deploy("zombie", work_pool_name="cpu", tags=[TAG], print_next_steps=False)
    silent, cancelled = (run_deployment("sleeper/zombie", timeout=0) for _ in range(2))
    assert wait_until(lambda: state_name(silent) == state_name(cancelled) == "Running", 90)

    for process in fleet.parts(folder)["cpu"]:
        # Where the worker was the first to go, its children may have gone with it.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(cancelled.id, Cancelling())
        taken = client.create_flow_run(flow(lambda: None, name="taken"), tags=[TAG], state=Pending())
        others = client.create_flow_run(flow(lambda: None, name="others"), state=Pending())
    ends = [silent, cancelled, taken, others]
    assert wait_until(lambda: [*map(state_name, ends)] == ["Crashed", "Cancelled", "Crashed", "Pending"], 150)
    assert "its process and its worker died" in str(read(silent).state.message)

    assert "cpu: not running" in invoke(fleet.app, "status", "--folder", str(folder), expect=1)
    assert "cpu died" in invoke(fleet.app, "up", "--folder", str(folder), expect=1)
    with bystander(folder) as stranger:
        assert "is down" in invoke(fleet.app, "down", "--folder", str(folder))
        assert fleet.parts(folder) == {} and stranger.poll() is None
    assert "was not up" in invoke(fleet.app, "down", "--folder", str(folder))


class bystander:
    """A process of another fleet's, for as long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, fleet.FLEET: f"{folder}-other", fleet.PART: "cpu"}

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(["sleep", "600"], env=self.environment)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_a_port_in_use_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    environment = fleet_environment(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(environment["PREFECT_SERVER_API_PORT"])))
        taken.listen()
        said = run("deployments.fleet", "up", "--folder", str(tmp_path), environment=environment, expect=1)
    assert environment["PREFECT_SERVER_API_PORT"] in said and "PREFECT_SERVER_API_PORT=" in said
    assert fleet.parts(tmp_path) == {}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("postgres://user:p%40ss@host/db", "postgresql+asyncpg://user:p%40ss@host/db"),
        ("postgresql://user@host:5433/db?sslmode=require", "postgresql+asyncpg://user@host:5433/db?ssl=require"),
        ("postgresql+asyncpg://user@host/db", "postgresql+asyncpg://user@host/db"),
    ],
)
def test_a_postgres_address_is_turned_into_prefects(given: str, wanted: str) -> None:
    assert fleet.asyncpg_url(given) == wanted


@pytest.mark.parametrize("given", ["mysql://user:secret@host/db", "secret"])
def test_another_database_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(fleet.FleetError, match="needed: postgresql://") as refusal:
        fleet.asyncpg_url(given)
    assert "secret" not in str(refusal.value)


def test_every_entrypoint_loads_from_what_the_images_hold(tmp_path: Path) -> None:
    """`prefect deploy` registers a flow whose imports are broken, and says that all went well."""
    copied = [copies(dockerfile) for dockerfile in DOCKERFILES]
    assert copied[0] == copied[1]
    let_through = (ROOT / ".dockerignore").read_text().split()
    for name in copied[0]:
        assert f"!{name}" in let_through
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    entrypoints = [each["entrypoint"] for each in DEPLOYMENTS.values()]
    program = (
        "import sys; from prefect.flows import load_flow_from_entrypoint as load; import deployments.bootstrap; "
        "print(*(load(each, use_placeholder_flow=False).name for each in sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *entrypoints]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name.partition("/")[0] for name in DEPLOYMENTS]


def copies(dockerfile: Path) -> list[str]:
    lines = [line.split()[1:-1] for line in dockerfile.read_text().splitlines() if line.startswith("COPY ")]
    return [name for line in lines for name in line]


def test_what_the_gpu_worker_image_starts_knows_its_options() -> None:
    lines = DOCKERFILES[1].read_text().splitlines()
    (command,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD [")]
    assert command[:2] == ["python", "-m"]
    run(*command[2:], "--help", environment=dict(os.environ))


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", *map(str, DOCKERFILES)],
        ["yamllint", "-d", YAML_RULES, "prefect.yaml", "deployments"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deployments/compose.yaml"],
        ["kubernetes-validate", "--strict", "deployments/gpu-worker.kubernetes.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_images_and_manifests_pass_their_linters(command: list[str]) -> None:
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
