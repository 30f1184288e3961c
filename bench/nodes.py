"""Three nodes on one PostgreSQL under a mixed load, while nodes and the database fail.

`python -m bench.nodes [KILLS]`: nodes are killed (SIGKILL) so many times, by default 30, the
database is restarted twice, one node is suspended past its lease, one is cut off from the database
for 30 s. A ledger outside compares what was acknowledged with what arrived.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from tests.partners.cluster import LEASE_SECONDS, Cluster, Load, settle

from bench.common import folder, machine

ACCOUNTS = ("111111111111", "222222222222", "333333333333", "444444444444")
CUT_SECONDS = 30.0


def main(kills: int = 30) -> int:
    print(machine())
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place:
        Path(place).chmod(0o755)
        with Cluster(Path(place)) as cluster:
            for account in ACCOUNTS:
                cluster.add_account(account)
            started = time.monotonic()
            with Load(cluster) as load:
                _fail(cluster, kills)
            print(f"load for {time.monotonic() - started:.0f} s", flush=True)
            ledger = settle(cluster, load, 120)
    print("\n".join(ledger.lines()))
    return 1 if any(ledger.lost.values()) or ledger.least_gap < 1000 else 0


def _fail(cluster: Cluster, kills: int) -> None:
    for number in range(kills):
        time.sleep(random.uniform(0.5, 3))
        cluster.kill(number % cluster.count)
        if number == kills // 4:
            cluster.restart_database("fast")
            print("the database is restarted", flush=True)
        if number == kills // 2:
            with cluster.suspended(0):
                time.sleep(3 * LEASE_SECONDS)
            print("node 0 continues", flush=True)
        if number == 3 * kills // 4:
            cluster.restart_database("immediate")
            print("the database is restarted after a crash", flush=True)
    with cluster.cut.paused():
        time.sleep(CUT_SECONDS)
    print(f"{kills} kills; the last node was cut off", flush=True)
    time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
