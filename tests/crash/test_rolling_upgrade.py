"""Three nodes are upgraded to the next version one at a time, under load, and lose nothing.

The next version is a copy of this one with more migrations, started by PYTHONPATH.
"""

import time

import pytest

from sendback.store.engine.tables import SCHEMA_VERSION
from tests.conftest import need
from tests.partners.cluster import Cluster, Load, settle
from tests.partners.next_version import NextVersion
from tests.partners.postgresql import binaries
from tests.partners.sendback import run_cli

# What clients may see: a node that stops ends their session or does not answer, and an account may
# bounce once a second.
ALLOWED = {"SMTP 421", "SendBounce without an answer", "SendBounce Throttling"}


def db(cluster, *arguments, environment=None):
    node = cluster.nodes[0]
    return run_cli(
        "db", *arguments, "--data-dir", str(node.data_dir),
        check=False, environment={**node.environment, **(environment or {})},
    )  # fmt: skip


def restart(node, environment):
    """Stop a node as an operator does, and start it with the next version."""
    assert node.stop() == 0
    node.environment.update(environment)
    node.start()
    time.sleep(1)


@pytest.mark.timeout(900)
def test_nodes_are_upgraded_one_at_a_time(tmp_path, record_property):
    need("PostgreSQL", available=binaries() is not None)
    following = NextVersion(tmp_path / "next")
    following.needs_a_table()
    following.add("9001", "op.create_table('added', sa.Column('a', sa.Integer))\n"
                  "op.add_column('outbox', sa.Column('new', sa.Text))")  # fmt: skip
    following.add("9002", "build_index('outbox_new', 'outbox', ['new'])")
    following.add("9003", "op.drop_index('access_keys_by_expiry')", kind="contract",
                  more="oldest_code = '9002'")  # fmt: skip
    new = following.environment
    with Cluster(tmp_path) as cluster:
        cluster.add_account("111111111111")
        with Load(cluster, senders=2) as load:
            time.sleep(1)
            upgraded = db(cluster, "upgrade", environment=new)
            assert upgraded.returncode == 0, upgraded.stderr
            assert f"from schema {SCHEMA_VERSION} to 9002" in upgraded.stdout
            first = cluster.nodes[0]  # a node of this version may also start on the new schema
            first.stop()
            first.start()
            for node in cluster.nodes[:-1]:
                restart(node, new)
            early = db(cluster, "upgrade", "--contract", environment=new)
            assert early.returncode == 1
            assert "removes what older servers use" in early.stderr
            restart(cluster.nodes[-1], new)
            contracted = db(cluster, "upgrade", "--contract", environment=new)
            assert "from schema 9002 to 9003" in contracted.stdout, contracted.stderr
            time.sleep(1)
        old = db(cluster, "status", environment={"PYTHONPATH": ""})
        assert old.returncode == 1
        assert "only code of schema 9002 or newer may use it" in old.stderr
        ledger = settle(cluster, load, 60)
    report = "\n".join(ledger.lines())
    record_property("ledger", report)
    print(report)
    assert ledger.mails > 20, report
    assert ledger.bounces > 5, report
    assert not any(ledger.lost.values()), report
    assert not any(ledger.twice.values()), report
    assert set(ledger.refused) <= ALLOWED, report
