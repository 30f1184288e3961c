"""Three nodes on one PostgreSQL lose nothing while nodes, the database and the network fail.

`python -m bench.nodes` does the same for longer, with thirty kills.
"""

import time

import pytest

from tests.conftest import need
from tests.partners.cluster import LEASE_SECONDS, Cluster, Load, settle
from tests.partners.postgresql import binaries


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost(tmp_path, record_property):
    need("PostgreSQL", available=binaries() is not None)
    with Cluster(tmp_path) as cluster:
        cluster.add_account("111111111111")
        cluster.add_account("222222222222")
        with Load(cluster, senders=2) as load:
            time.sleep(1)
            for number in range(cluster.count):
                cluster.kill(number)
            cluster.restart_database("immediate")
            with cluster.cut.paused():
                time.sleep(6)
            with cluster.suspended(0):
                time.sleep(2 * LEASE_SECONDS)
            time.sleep(2)
        ledger = settle(cluster, load, 60)
    report = "\n".join(ledger.lines())
    record_property("ledger", report)
    assert ledger.mails > 20, report
    assert ledger.bounces > 5, report
    assert not any(ledger.lost.values()), report
    assert ledger.twice["bounces by rules queued"] == 0, report
    assert ledger.least_gap >= 1000, report
