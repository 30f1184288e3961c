"""Rows that no worker would find: reported by `sendback db check`."""

import pytest
from sqlalchemy import text

from sendback.store.access.accounts import AddAccount
from sendback.store.engine.integrity import check_store
from sendback.store.engine.store import prepare_schema, transact
from sendback.store.outbox.destinations import PauseDestination
from sendback.store.outbox.queue import add_to_outbox
from sendback.store.rules.processing import Processing, add_processing
from tests.conftest import NOW
from tests.partners.postgresql import database_url
from tests.partners.queue import ACCOUNT, a_bounce


@pytest.fixture
def url(tmp_path):
    found = database_url(tmp_path)
    prepare_schema(found)
    transact(found, AddAccount(ACCOUNT, NOW), writes=True)
    return found


@pytest.mark.parametrize(
    "damage", ["UPDATE destinations SET due_at = NULL", "DELETE FROM destinations"]
)
def test_mail_that_no_worker_looks_for(url, tmp_path, damage):
    mail = [a_bounce(name, "x@a.example", NOW) for name in ("m1", "m2")]
    transact(url, lambda connection: add_to_outbox(connection, mail), writes=True)
    assert check_store(url, tmp_path) == []
    transact(url, lambda connection: connection.execute(text(damage)), writes=True)
    (problem,) = check_store(url, tmp_path)
    assert problem.startswith("no worker looks for the 2 messages to a.example: run")
    for is_paused in (True, False):  # as it advises
        transact(url, PauseDestination("a.example", is_paused, NOW), writes=True)
    assert check_store(url, tmp_path) == []


def test_mail_whose_rules_are_gone(url, tmp_path):
    entry = Processing(f"r1/{ACCOUNT}", "r1", ACCOUNT, "set", "version", NOW, NOW)
    transact(url, lambda connection: add_processing(connection, [(entry, None)]), writes=True)
    assert check_store(url, tmp_path) == [
        "the rules by which message r1 is to be processed are gone"
    ]
