"""Workers on a real Ray cluster of one node; a whole sweep on one is in tests/test_sweep.py."""

import pytest

from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.ray_cluster import RayWorkers

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def address():
    ray_cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    cluster = ray_cluster.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    yield cluster.address
    cluster.shutdown()


@pytest.mark.parametrize(
    ("threads", "gpus", "warnings"),
    [(2, 0, []), (3, 0, ["3 CPUs, so"]), (1, 0.5, ["1 CPU and 0.5 GPUs, so"])],
)
def test_a_job_that_no_node_can_take_is_reported_once(address, tmp_path, threads, gpus, warnings):
    jobs = jobs_of(Grid(axes={"seed": [0, 1]}), tmp_path)
    lines = []
    workers = RayWorkers(len, address, None, lambda job: threads, gpus, tmp_path, lines.append)
    try:
        for job in jobs:
            workers.begin(job)
        workers.stop()
    finally:
        workers.close()
    assert len(lines) == len(warnings)
    assert all(words in line for words, line in zip(warnings, lines, strict=True))
