"""Ray, where it is asked for: started on this machine or reached at an address, and quiet."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any

from attfm.errors import ConfigError, MissingExtraError, TrainingError

_PATIENCE = 10.0  # seconds for a socket at an address to open
_JOINING = 60.0  # seconds for what answers there to take this process in


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
    unreachable = ConfigError(
        f"--address {address}: no Ray cluster answered there within {_PATIENCE:.0f} seconds. Give HOST:PORT of its "
        "head, as 'ray start --head' prints it."
    )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError(f"--address {address} is no address: give HOST:PORT, as 'ray start --head' prints it.")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError):
        raise unreachable from None
    with ThreadPool(1) as pool:  # something else may listen there, which Ray would wait for
        joining = pool.apply_async(lambda: ray.init(address=address, **quiet))
        try:
            joining.get(_JOINING)
        except Exception as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise unreachable from None


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
