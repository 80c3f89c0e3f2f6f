"""`TF_CONFIG` as data, and workers that wait for each other, over this machine's own sockets."""

import json
import socket
import threading
import time

import pytest

from lotcal_tf.errors import UsageError, WorkerLost
from lotcal_tf.training.distributed.cluster import Cluster, of, parse, wait_for_workers

HOSTS = ["a:2222", "b:2222"]


def config(cluster=None, task=None):
    return json.dumps(
        {"cluster": cluster or {"worker": HOSTS}, "task": task or {"type": "worker", "index": 1}}
    )


def free_ports(count):
    """Ports that nobody holds; all are held at once, so that they differ."""
    listeners = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def test_the_first_worker_is_the_chief_where_no_chief_is_named():
    found = parse(config())
    assert found == Cluster({"worker 0": "a:2222", "worker 1": "b:2222"}, "worker 1")
    assert not found.is_chief
    assert parse(config(task={"type": "worker", "index": 0})).is_chief


def test_a_chief_comes_before_the_workers():
    cluster = {"worker": HOSTS, "chief": ["[::1]:9"]}
    assert list(parse(config(cluster)).addresses) == ["chief 0", "worker 0", "worker 1"]
    assert not parse(config(cluster, {"type": "worker", "index": 0})).is_chief
    assert parse(config(cluster, {"type": "chief", "index": 0})).is_chief


def test_only_several_machines_need_a_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "nonsense")
    assert of("none") is None
    assert of("mirrored") is None
    with pytest.raises(UsageError, match="TF_CONFIG is not valid JSON"):
        of("multi_worker")
    monkeypatch.setenv("TF_CONFIG", config())
    assert of("multi_worker") == parse(config())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("{", "is not valid JSON"),
        ("[]", "has no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no task"),
        ('{"cluster": ["a:1"], "task": {}}', "has no cluster"),
        (config({"worker": []}), "names no worker"),
        (config({"worker": "a:1"}), r"cluster.worker='a:1': must be a list"),
        (config({"worker": HOSTS, "ps": ["c:1"]}), "cluster.ps: only chief and worker"),
        (config({"worker": HOSTS, "chief": ["c:1", "d:1"]}), "can be only one"),
        (config({"worker": ["a:1", "b"]}), r"cluster.worker\[1\]='b': must be host:port"),
        (config({"worker": ["a:1", ":2"]}), r"cluster.worker\[1\]=':2': must be host:port"),
        (config({"worker": ["a:0", "b:1"]}), r"cluster.worker\[0\]='a:0': .* from 1 to 65535"),
        (config({"worker": ["a:65536", "b:1"]}), "from 1 to 65535"),
        (config({"worker": [7, "b:1"]}), r"cluster.worker\[0\]=7: must be host:port"),
        (config({"worker": ["a:1", "a:1"]}), r"cluster.worker\[1\]='a:1': is listed twice"),
        (config(task={"type": "worker", "index": 2}), "which has worker 0, worker 1"),
        (config(task={"type": "worker", "index": -1}), "is not in the cluster"),
        (config(task={"type": "worker", "index": True}), "is not in the cluster"),
        (config(task={"type": "chief", "index": 0}), "is not in the cluster"),
        (config(task={"type": "worker"}), "is not in the cluster"),
    ],
)
def test_what_is_wrong_with_it_is_told_in_one_line(text, told):
    with pytest.raises(UsageError, match=told) as raised:
        parse(text)
    assert str(raised.value).startswith("TF_CONFIG ")
    assert "\n" not in str(raised.value)


def test_workers_wait_for_each_other_and_free_their_ports():
    ports = free_ports(3)
    addresses = {f"worker {i}": f"localhost:{port}" for i, port in enumerate(ports)}
    met = []

    def worker(name, late):
        time.sleep(late)
        wait_for_workers(Cluster(addresses, name), 20)
        met.append(name)
        # What TensorFlow does next: others may still try to connect.
        listeners.append(socket.create_server(("localhost", ports[int(name[-1])])))

    listeners: list[socket.socket] = []
    threads = [
        threading.Thread(target=worker, args=(name, late))
        for name, late in zip(addresses, (0, 0.1, 0.6), strict=True)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    assert met == []  # the third is not there yet
    for thread in threads:
        thread.join(20)
    for listener in listeners:
        listener.close()
    assert sorted(met) == list(addresses)


def test_a_worker_that_does_not_come_is_named_within_the_time():
    here, missing = free_ports(2)
    addresses = {"worker 0": f"localhost:{here}", "worker 1": f"localhost:{missing}"}
    begun = time.monotonic()
    with pytest.raises(WorkerLost, match=rf"worker 1 at localhost:{missing}.* within 0.5 s"):
        wait_for_workers(Cluster(addresses, "worker 0"), 0.5)
    assert 0.5 <= time.monotonic() - begun < 5


def test_a_host_that_does_not_exist_is_told_of_likewise():
    (here,) = free_ports(1)
    addresses = {"worker 0": f"localhost:{here}", "worker 1": "no-such-host.invalid:2222"}
    with pytest.raises(WorkerLost, match=r"worker 1 at no-such-host.invalid:2222"):
        wait_for_workers(Cluster(addresses, "worker 0"), 0.2)


def test_an_address_of_ones_own_that_another_process_holds():
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        cluster = Cluster({"worker 0": f"localhost:{port}"}, "worker 0")
        with pytest.raises(UsageError, match=rf"worker 0 cannot listen at localhost:{port}"):
            wait_for_workers(cluster, 1)
