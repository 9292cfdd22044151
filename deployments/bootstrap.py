"""What a Prefect server needs before anything is deployed: work pools, the place of records, the end of zombies.

``python -m deployments.bootstrap`` creates what is missing, changes what differs, leaves the rest alone, and says so.
Limits are not made here: deployments carry theirs in prefect.yaml, and runs make the one that guards their run_id.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from prefect.automations import Automation, EventTrigger, Posture, ResourceSpecification
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import LocalFileSystem
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH
from prefect.workers.process import ProcessWorker
from splice.settings import settings
from tasks.access import BLOCK as CREDENTIALS_BLOCK

POOLS = {
    "cpu": "Orchestrators of join-clips: they plan, cut, encode and join. Add workers as you add machines.",
    "gpu": "Generates transitions, one at a time for each GPU. Warm: `python -m deployments.gpu_worker --pool gpu`.",
    "control": "timelapse-batch: it waits for runs of the pool cpu, and so needs a pool of its own.",
}

TAG = "join-clips"
"""Of every deployment in prefect.yaml, and so of its runs: the server may have other flows, with other heartbeats."""

RESULTS_BLOCK = "join-clips-results"
RESULTS_VARIABLE = "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"
HEARTBEAT_SECONDS = 30  # Prefect allows no less
SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
START = timedelta(minutes=5)
"""What a run is given from the moment a worker takes it until its flow begins."""

RUNNING = {"Running", "Retrying", "heartbeat"}
WAITING = {"Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused", "Suspended"}
ENDED = {"Completed", "AlreadyInProgress", "Failed", "TimedOut", "Crashed", "Cancelled"}
"""Names of the events of flow runs: of their states, and the heartbeat."""

Outcome = Literal["created", "changed", "left alone"]

Results = Annotated[
    str,
    typer.Option(
        envvar="JOIN_CLIPS_RESULTS",
        help="Where records of finished steps are kept: a folder that every worker has, or s3://bucket/prefix. "
        "Default: where they are; at first, where Prefect keeps results on this machine.",
    ),
]

app: typer.Typer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(results: Results = "") -> None:
    """Create work pools, result storage and the zombie automation on the server that PREFECT_API_URL names."""
    if not PREFECT_API_URL.value():
        typer.echo(
            "no Prefect server: start one by `make up`, or set PREFECT_API_URL to the address of its API", err=True
        )
        raise typer.Exit(2)
    typer.echo(f"{PREFECT_API_URL.value()}:")
    for line in bootstrap(results):
        typer.echo(f"  {line}")


def bootstrap(results: str = "") -> Iterator[str]:
    """Make the server ready; a line for each thing, which says what became of it.

    Without ``results`` they stay where they are: an upgrade must not lose sight of them.
    """
    with get_client(sync_client=True) as client:
        slug = "" if results else known_results(client)
        if slug:
            yield f"results in {slug}: left alone"
        else:
            slug, *outcomes = keep_results(results or str(PREFECT_LOCAL_STORAGE_PATH.value()))
            yield from outcomes
        environment = {RESULTS_VARIABLE: slug, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
        for name, description in POOLS.items():
            yield f"work pool {name}: {ensure_pool(client, name, description, environment)}"
        for automation in automations():
            yield f"automation '{automation.name}': {ensure_automation(client, automation)}"


def known_results(client: SyncPrefectClient) -> str:
    """The slug of the block in which the pools keep results already; empty where they don't."""
    try:
        template = client.read_work_pool("cpu").base_job_template
    except ObjectNotFound:
        return ""
    return str(environment_of(template).get(RESULTS_VARIABLE, ""))


def keep_results(location: str) -> tuple[str, ...]:
    """The slug of the block that stands for ``location``, and what became of each block that it takes."""
    if location.startswith("s3://"):
        return keep_on_s3(location)
    folder = Path(location).expanduser().absolute()
    outcome = ensure_block(LocalFileSystem(basepath=str(folder)), RESULTS_BLOCK)
    return f"local-file-system/{RESULTS_BLOCK}", f"results in {folder}: {outcome}"


def keep_on_s3(location: str) -> tuple[str, ...]:
    # Only then: it takes a second to import.
    from prefect_aws import AwsClientParameters, AwsCredentials, S3Bucket

    endpoint = settings().s3_endpoint_url
    try:
        # Its secrets are the user's: none are put there, or taken away. Without any, boto3 looks in its usual places.
        credentials: Any = AwsCredentials.load(CREDENTIALS_BLOCK)
    except ValueError:
        credentials = AwsCredentials()
    if endpoint:
        parameters = credentials.aws_client_parameters.model_dump() | {"endpoint_url": endpoint}
        credentials.aws_client_parameters = AwsClientParameters(**parameters)
    outcome = ensure_block(credentials, CREDENTIALS_BLOCK)
    bucket, _, folder = location.removeprefix("s3://").partition("/")
    saved = AwsCredentials.load(CREDENTIALS_BLOCK)
    wanted = S3Bucket(bucket_name=bucket, bucket_folder=folder.strip("/"), credentials=saved)
    return (
        f"s3-bucket/{RESULTS_BLOCK}",
        f"credentials block {CREDENTIALS_BLOCK}: {outcome}",
        f"results in {location}: {ensure_block(wanted, RESULTS_BLOCK)}",
    )


def ensure_block(wanted: Block, name: str) -> Outcome:
    try:
        known: Any = type(wanted).load(name)
    except ValueError:
        wanted.save(name)
        return "created"
    if content(known) == content(wanted):
        return "left alone"
    wanted.save(name, overwrite=True)
    return "changed"


def content(block: Block) -> dict[str, Any]:
    """What a block says, without what Prefect knows of it once it is saved."""
    return {name: value for name, value in block.model_dump().items() if not name.startswith("_")}


def ensure_pool(client: SyncPrefectClient, name: str, description: str, environment: dict[str, str]) -> Outcome:
    """A pool whose runs get ``environment``; whatever else its template says stays."""
    try:
        known = client.read_work_pool(name).base_job_template
    except ObjectNotFound:
        template = with_environment(ProcessWorker.get_default_base_job_template(), environment)
        pool = WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
        client.create_work_pool(pool)
        return "created"
    template = with_environment(known, environment)
    if template == known:
        return "left alone"
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return "changed"


def with_environment(template: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    template = deepcopy(template)
    template["variables"]["properties"]["env"]["default"] = {**environment_of(template), **environment}
    return template


def environment_of(template: dict[str, Any]) -> dict[str, str]:
    return template["variables"]["properties"]["env"].get("default") or {}


def automations(silence: timedelta = SILENCE, start: timedelta = START) -> list[Automation]:
    """What ends the runs that lost their process and its worker. A worker that lives does so itself, at once."""
    lost = (
        "Not heard of for {} s: its process and its worker died. The same submission, or `prefect flow-run retry`, "
        "goes on at the first step that is not done."
    )
    cancelled = "Nobody ended it within {} s: its worker died."
    alive = RUNNING | WAITING | ENDED
    # A sign of life begins the count anew in both of the first two. Were it merely expected by one, Prefect would read
    # the count before writing it: on a busy server SQLite's lock lets that fail, and neither of them counts the sign.
    return [
        watch("join-clips: end runs without a heartbeat", RUNNING, alive, silence, "CRASHED", lost),
        watch("join-clips: end runs that never start", RUNNING | {"Pending"}, alive, start, "CRASHED", lost),
        # Prefect lets no run that is being cancelled crash.
        watch("join-clips: end runs that nobody cancels", {"Cancelling"}, ENDED, silence, "CANCELLED", cancelled),
    ]


def watch(name: str, after: set[str], expect: set[str], within: timedelta, end: str, message: str) -> Automation:
    """Puts a run of ours into the state ``end`` that was heard of by ``after``, and then not by ``expect`` in time."""
    event = "prefect.flow-run"
    return Automation(
        name=name,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": f"{event}.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
            ),
            for_each={"prefect.resource.id"},
            after={f"{event}.{each}" for each in after},
            expect={f"{event}.{each}" for each in expect},
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType(end), message=message.format(within.seconds))],
    )


def ensure_automation(client: SyncPrefectClient, wanted: Automation) -> Outcome:
    """Whether it is enabled stays as it is."""
    known = client.read_automations_by_name(wanted.name)
    if not known:
        wanted.create()
        return "created"
    wanted.id, wanted.enabled = known[0].id, known[0].enabled
    if known[0].model_dump(exclude={"created", "updated"}) == wanted.model_dump():
        return "left alone"
    wanted.update()
    return "changed"


if __name__ == "__main__":
    app()
