"""Other deployments that a run makes use of."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from splice.errors import RequestError


def require_deployment(parameter: str, name: str) -> None:
    """Raises RequestError where this process's server has no deployment ``name``, which ``parameter`` asks for."""
    if not PREFECT_API_URL.value():
        raise RequestError(
            f"{parameter}: {name} needs a Prefect server with workers; set PREFECT_API_URL to its address, or leave "
            f"{parameter} out"
        )
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except (ObjectNotFound, ValueError) as error:
            raise RequestError(
                f"{parameter}: {name} is unknown to the server; give the name of a deployment, flow/name, or deploy "
                f"it: make deploy"
            ) from error
