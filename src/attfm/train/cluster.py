"""Ray, where it is asked for: started on this machine or reached at an address, and quiet."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attfm.errors import ConfigError, MissingExtraError, TrainingError

_PATIENCE = 10.0  # seconds for a socket at an address to open
_ANSWER = 60.0  # seconds for what listens there to show that it is a head of Ray


def require_ray() -> Any:
    """Return the module ray; raise MissingExtraError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by itself from a next version
    try:
        import ray
        import ray.data
        import ray.train
    except ImportError:
        raise MissingExtraError("ray is not installed. Install it: pip install 'attfm[ray]'.") from None
    return ray


@contextmanager
def cluster(workers: int, address: str | None = None) -> Iterator[Any]:
    """Give the module ray, connected to a cluster that has a processor for each worker.

    Parameters
    ----------
    address : "host:port" of a cluster's head; None: Ray is started on this machine, and stopped at the end

    Raises
    ------
    MissingExtraError : ray is not installed
    ConfigError : nobody answers at the address in time, or the cluster has too few processors
    """
    ray = require_ray()
    mine = not ray.is_initialized()
    if mine:
        _join(ray, workers, address)
    try:
        processors = int(ray.cluster_resources().get("CPU", 0))
        if processors < workers:
            raise ConfigError(f"--workers {workers}: the cluster has {processors} processors. Ask for no more workers.")
        _quieten(ray)
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _join(ray: Any, workers: int, address: str | None) -> None:
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True,
    }  # fmt: skip
    if address is None:
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)
        ray.init(
            address="local", num_cpus=max(os.cpu_count() or 1, workers), include_dashboard=False,
            _node_ip_address="127.0.0.1", runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet,
        )  # fmt: skip
        return
    _check_answers(ray, address)
    ray.init(address=address, **quiet)


def _check_answers(ray: Any, address: str) -> None:
    """Raise ConfigError where no head of a cluster answers in time: Ray itself waits for minutes, and may exit."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--address {address} is no address: give HOST:PORT, as 'ray start --head' prints it.")
    if host in ("localhost", "127.0.0.1", "::1"):  # which Ray takes for the address that other machines see
        host = ray.util.get_node_ip_address()
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", f"{host}:{port}"]
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        # Something else may listen there. It is asked by a process that can be ended.
        subprocess.run(command, timeout=_ANSWER, check=True, capture_output=True)
    except (OSError, OverflowError, subprocess.SubprocessError):
        raise ConfigError(
            f"--address {address}: no Ray cluster answers at {host}:{port}. Give HOST:PORT of its head, as "
            "'ray start --head' prints it."
        ) from None


def _quieten(ray: Any) -> None:
    """Leave what is shown to attfm."""
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def processors_of_worker(ray: Any, workers: int) -> int:
    """Return the most processors that each of the workers can have."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    for processors in range(max(nodes, default=1), 1, -1):
        if sum(node // processors for node in nodes) >= workers:
            return processors
    if sum(nodes) < workers:
        raise TrainingError(f"The cluster has {sum(nodes)} processors left for {workers} workers.")
    return 1
