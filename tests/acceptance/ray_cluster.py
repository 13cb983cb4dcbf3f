"""A Ray cluster of two nodes on this machine, in a process of its own: Ray leaves handlers and threads wherever it is.

Writes a line of JSON once it runs, {"address", "client_address"}. Reads commands from standard input: ``lose`` kills
the second node with all that runs on it, as a machine without power, and answers {"killed": process ids}. At the end
of its input it ends, and the cluster with it.
"""

import json
import signal
import sys

import psutil
from ray.cluster_utils import Cluster

from benchmarks.postgres_server import free_port


def main() -> None:
    client_port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": False,
            "ray_client_server_port": client_port,
        },
    )
    second = cluster.add_node(num_cpus=2)
    try:
        print(json.dumps({"address": cluster.address, "client_address": f"ray://127.0.0.1:{client_port}"}), flush=True)
        for _ in sys.stdin:
            victims = []
            for started in second.all_processes["raylet"]:
                raylet = psutil.Process(started.process.pid)
                # Nobody on the node may see the others die.
                raylet.suspend()
                victims += [raylet, *raylet.children(recursive=True)]
            for victim in victims:
                victim.send_signal(signal.SIGKILL)
            cluster.remove_node(second, allow_graceful=False)
            print(json.dumps({"killed": [victim.pid for victim in victims]}), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
