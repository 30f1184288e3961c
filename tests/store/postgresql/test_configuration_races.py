"""Changes of accounts, identities and rules beside each other on two nodes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sendback.clock import to_milliseconds
from sendback.faults.rules import parse_fault
from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.receipt.model import Rule, StopAction
from sendback.store.access.accounts import AddAccount
from sendback.store.access.installation import AcquireLock, CheckWrite, GetOrSet
from sendback.store.access.keys import AccessKey, AddKeyOfUser
from sendback.store.access.users import AddUser, DeleteUser, NamedPolicy, PutUserPolicy
from sendback.store.engine.errors import (
    AlreadyExistsError,
    InUseError,
    LimitReachedError,
    NotFoundError,
)
from sendback.store.engine.sweeping import SweepAlone
from sendback.store.faults.rules import AddFault
from sendback.store.identities.checks import CheckKind, FindChecks, IdentityCheck, RecordCheck
from sendback.store.identities.dkim_keys import (
    DkimKey,
    DkimKeyState,
    FindDkimKeys,
    KeysChangedError,
    RotateDkimKeys,
    add_dkim_keys,
)
from sendback.store.identities.identities import (
    DeleteIdentity,
    FindIdentities,
    Identity,
    IdentityKind,
    PutIdentity,
    UseVerificationToken,
    VerificationStatus,
)
from sendback.store.identities.policies import PutIdentityPolicy
from sendback.store.identities.settings import ChangeSettings, FindSettings, SetMailFrom
from sendback.store.identities.verification_mails import (
    TooManyVerificationMailsError,
    VerificationLimits,
)
from sendback.store.identities.verification_requests import (
    RequestDnsVerification,
    RequestMailVerification,
)
from sendback.store.identities.verification_templates import (
    AddTemplate,
    ChangeTemplate,
    FindTemplate,
    VerificationTemplate,
)
from sendback.store.outbox.mta_sts import CachedStsPolicy, FindStsPolicy, PutStsPolicy
from sendback.store.rules.filters import AddFilter, ListFilters
from sendback.store.rules.rule_sets import (
    ActivateRuleSet,
    AddRuleSet,
    ChangeRules,
    DeleteRuleSet,
    FindActiveRuleSet,
    FindRuleSet,
    ForgetVersions,
)
from sendback.store.rules.targets import ListTargets, PutTargets
from tests.conftest import NOW
from tests.partners.queue import ACCOUNT, a_bounce
from tests.store.postgresql.conftest import OTHER

DOMAIN = "example.com"
S = VerificationStatus
LONG_AGO = NOW - timedelta(days=30)


def a_rule(name):
    return Rule(name=name, actions=(StopAction(),))


def put_first(name):
    return ChangeRules(ACCOUNT, "set", lambda rules: (a_rule(name), *rules), NOW)


def names(race):
    return [rule.name for rule in race.run(FindRuleSet(ACCOUNT, "set")).rules]


def add_set(race, name="set", now=NOW):
    race.run(AddRuleSet(ACCOUNT, name, now, 9))


# --- rules ------------------------------------------------------------------------------------


def test_no_rule_is_lost(race):
    add_set(race)
    race(put_first("one"), put_first("two"))
    assert names(race) == ["two", "one"]


def test_a_set_that_is_being_activated_is_not_deleted(race):
    add_set(race)
    _, refused = race(ActivateRuleSet(ACCOUNT, "set"), DeleteRuleSet(ACCOUNT, "set", NOW))
    assert isinstance(refused, InUseError)
    assert race.run(FindActiveRuleSet(ACCOUNT)).name == "set"


def test_a_set_that_is_being_deleted_is_not_activated(race):
    add_set(race)
    _, refused = race(DeleteRuleSet(ACCOUNT, "set", NOW), ActivateRuleSet(ACCOUNT, "set"))
    assert isinstance(refused, NotFoundError)
    assert race.run(FindActiveRuleSet(ACCOUNT)) is None


def test_a_rule_is_not_added_to_a_set_that_is_being_deleted(race):
    add_set(race)
    _, refused = race(DeleteRuleSet(ACCOUNT, "set", NOW), put_first("one"))
    assert isinstance(refused, NotFoundError)


def old_version(race):
    """Leave a version that no set names, last named long ago: that of one rule."""
    add_set(race, now=LONG_AGO)
    race.run(ChangeRules(ACCOUNT, "set", lambda _: (a_rule("one"),), LONG_AGO))
    race.run(ChangeRules(ACCOUNT, "set", lambda _: (a_rule("two"),), LONG_AGO))


def return_to_it(now=NOW):
    return ChangeRules(ACCOUNT, "set", lambda _: (a_rule("one"),), now)


@pytest.mark.parametrize("order", [1, -1])
def test_a_set_that_returns_to_an_old_version_keeps_its_rules(race, order):
    old_version(race)
    for found in race(*[return_to_it(), ForgetVersions(before=NOW - timedelta(days=1))][::order]):
        assert not isinstance(found, Exception)
    assert names(race) == ["one"]


def test_accounts_that_exchange_the_versions_of_their_sets_do_not_deadlock(race):
    for account, rule in ((ACCOUNT, "one"), (OTHER, "two")):
        race.run(AddRuleSet(account, "set", NOW, 9))
        race.run(ChangeRules(account, "set", lambda _, rule=rule: (a_rule(rule),), NOW))
    to_two = ChangeRules(ACCOUNT, "set", lambda _: (a_rule("two"),), NOW)
    to_one = ChangeRules(OTHER, "set", lambda _: (a_rule("one"),), NOW)
    assert race(to_two, to_one) == (None, None)


# --- what exists at most once, or a limited number of times -------------------------------------


def template(name):
    return VerificationTemplate(ACCOUNT, name, f"a@{DOMAIN}", "s", "c", "https://a", "https://b")


def a_filter(name):
    return IpFilter(name, FilterPolicy.BLOCK, "192.0.2.0/24")


def a_fault(name=""):
    text = {"at": "rcpt", "reply": "450 4.3.0 later"}
    return AddFault(parse_fault({**text, "name": name} if name else text), NOW)


def identity(name=DOMAIN, **more):
    kind = IdentityKind.EMAIL_ADDRESS if "@" in name else IdentityKind.DOMAIN
    values = {"status": S.PENDING, "verification_token": "t", "created_at": NOW, **more}
    return Identity(account_id=ACCOUNT, identity=name, kind=kind, **values)


def policy_of(name):
    return PutIdentityPolicy(ACCOUNT, DOMAIN, NamedPolicy(name, "{}"), 1)


LIMITED = {
    "rule sets": lambda name: AddRuleSet(ACCOUNT, name, NOW, 1),
    "filters": lambda name: AddFilter(ACCOUNT, a_filter(name), 1),
    "templates": lambda name: AddTemplate(template(name), 1),
    "policies": policy_of,
}


@pytest.mark.parametrize("unit", LIMITED.values(), ids=LIMITED.keys())
def test_limits_are_not_exceeded(race, unit):
    race.run(PutIdentity(identity()))
    _, refused = race(unit("one"), unit("two"))
    assert isinstance(refused, LimitReachedError)


UNIQUE = {
    "rule sets": lambda: AddRuleSet(ACCOUNT, "one", NOW, 9),
    "filters": lambda: AddFilter(ACCOUNT, a_filter("one"), 9),
    "templates": lambda: AddTemplate(template("one"), 9),
    "faults": lambda: a_fault("one"),
}


@pytest.mark.parametrize("unit", UNIQUE.values(), ids=UNIQUE.keys())
def test_the_second_of_a_name_is_refused(race, unit):
    _, refused = race(unit(), unit())
    assert isinstance(refused, AlreadyExistsError)


def test_faults_without_a_name_get_different_ones(race):
    first, second = race(a_fault(), a_fault())
    assert {first.rule.name, second.rule.name} == {"fault-1", "fault-2"}


def sts_policy(number):
    return PutStsPolicy(CachedStsPolicy(DOMAIN, number, "version: STSv1", NOW, NOW))


def test_rows_are_added_once(race):
    assert race(AddAccount("9" * 12, NOW), AddAccount("9" * 12, NOW)) == (True, False)
    assert race(AddUser(ACCOUNT, "ann", NOW), AddUser(ACCOUNT, "ann", NOW)) == (True, False)
    assert race(GetOrSet("name", "one"), GetOrSet("name", "two")) == ("one", "one")
    assert race(CheckWrite(NOW), CheckWrite(NOW)) == (None, None)
    assert race(sts_policy("1"), sts_policy("2")) == (None, None)
    assert race.run(FindStsPolicy(DOMAIN)).policy_id == "2"
    hour = timedelta(hours=1)
    locks = [AcquireLock("x", owner, NOW, NOW + hour, hour) for owner in ("one", "two")]
    assert race(*locks) == (True, False)


def test_targets_of_two_calls_are_all_there(race):
    put = [PutTargets(ACCOUNT, {("bucket", "same"): n, ("bucket", n): n}) for n in ("1", "2")]
    assert race(*put) == (None, None)
    found = race.run(ListTargets(ACCOUNT))
    assert found == {("bucket", "1"): "1", ("bucket", "2"): "2", ("bucket", "same"): "2"}


def test_a_change_of_a_template_keeps_what_another_call_has_changed(race):
    race.run(AddTemplate(template("one"), 9))
    changes = [{"subject": "new"}, {"content": "new"}]
    assert race(*(ChangeTemplate(ACCOUNT, "one", given) for given in changes)) == (True, True)
    found = race.run(FindTemplate(ACCOUNT, "one"))
    assert (found.subject, found.content) == ("new", "new")


# --- users --------------------------------------------------------------------------------------


def key_of(user):
    key = AccessKey("AKIA1", ACCOUNT, user, b"sealed", NOW)
    return AddKeyOfUser(key, may_create=False)


@pytest.mark.parametrize(
    ("unit", "table"),
    [
        (key_of("ann"), "access_keys"),
        (PutUserPolicy(ACCOUNT, "ann", NamedPolicy("p", "{}")), "user_policies"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_left_of_a_user_that_is_being_deleted(race, unit, table, order):
    race.run(AddUser(ACCOUNT, "ann", NOW))
    race(*[DeleteUser(ACCOUNT, "ann"), unit][::order])
    assert race.query(f"SELECT count(*) FROM {table}") == [(0,)]


# --- identities -----------------------------------------------------------------------------------


def test_a_verification_link_is_used_once(race):
    race.run(PutIdentity(identity("a@example.com")))
    uses = [UseVerificationToken(ACCOUNT, "a@example.com", "t", token) for token in ("u", "v")]
    assert race(*uses) == (S.PENDING, None)


def setting(**values):
    return ChangeSettings(ACCOUNT, DOMAIN, lambda old: replace(old, **values), DOMAIN)


@pytest.mark.parametrize("exists", [False, True])
def test_no_setting_is_lost(race, exists):
    race.run(PutIdentity(identity()))
    if exists:
        race.run(setting(behavior_on_mx_failure="RejectMessage"))
    race(setting(dkim_enabled=True), setting(forwarding_enabled=False))
    found = race.run(FindSettings(ACCOUNT, (DOMAIN,)))[DOMAIN]
    assert (found.dkim_enabled, found.forwarding_enabled) == (True, False)


BELONGINGS = {
    "settings": (setting(dkim_enabled=True), "identity_settings"),
    "policies": (policy_of("one"), "identity_policies"),
}


@pytest.mark.parametrize(("unit", "table"), BELONGINGS.values(), ids=BELONGINGS.keys())
@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_left_of_an_identity_that_is_being_deleted(race, unit, table, order):
    race.run(PutIdentity(identity()))
    race(*[DeleteIdentity(ACCOUNT, DOMAIN), unit][::order])
    assert race.query(f"SELECT count(*) FROM {table}") == [(0,)]


def check(kind, status=S.PENDING, asked_at=NOW):
    return IdentityCheck(ACCOUNT, DOMAIN, kind, status, asked_at, NOW)


def ask(race, *kinds, status=S.PENDING):
    for kind in kinds:
        race.run(RequestDnsVerification(identity(), check(kind, status)))


def record(kind, status, asked_at=NOW):
    """Records what a lookup that began with a pending check has found."""

    def result(current):
        if status is S.PENDING and current.status is S.SUCCESS:
            return current  # as `dns_status.updated`: it is missing for the first time
        return replace(current, status=status)

    return RecordCheck(check(kind, asked_at=asked_at), result)


def status_of(race):
    return race.run(FindIdentities(ACCOUNT, (DOMAIN,)))[0].status


def test_two_results_of_an_identity_do_not_miss_each_other(race):
    """Each is the reason for a state that the other one ends."""
    ask(race, CheckKind.DOMAIN, CheckKind.DKIM, status=S.SUCCESS)
    race(record(CheckKind.DOMAIN, S.FAILED), record(CheckKind.DKIM, S.FAILED))
    assert status_of(race) is S.FAILED


def test_an_older_lookup_does_not_undo_a_newer_one(race):
    ask(race, CheckKind.DOMAIN)
    race(record(CheckKind.DOMAIN, S.SUCCESS), record(CheckKind.DOMAIN, S.PENDING))
    assert status_of(race) is S.SUCCESS


def test_the_result_for_an_old_mail_from_domain_is_not_recorded(race):
    ask(race, CheckKind.DOMAIN)
    race.run(SetMailFrom(ACCOUNT, DOMAIN, "one.example.com", None, check(CheckKind.MAIL_FROM)))
    later = NOW + timedelta(minutes=1)
    again = check(CheckKind.MAIL_FROM, asked_at=later)
    _, result = race(
        SetMailFrom(ACCOUNT, DOMAIN, "two.example.com", None, again),
        record(CheckKind.MAIL_FROM, S.SUCCESS),
    )
    assert result is None
    (found,) = [c for c in race.run(FindChecks(ACCOUNT, (DOMAIN,))) if c.kind == "mail_from"]
    assert (found.status, found.asked_at) == (S.PENDING, later)


def dkim_key(selector, state):
    return DkimKey(ACCOUNT, DOMAIN, selector, "rsa", state, b"k", "p", NOW)


def test_a_rotation_is_not_made_for_keys_that_were_rotated_meanwhile(race):
    race.run(PutIdentity(identity()))
    keys = (dkim_key("a", DkimKeyState.ACTIVE), dkim_key("b", DkimKeyState.STANDBY))
    race.run(lambda c: add_dkim_keys(c, keys))
    units = [
        RotateDkimKeys(
            account_id=ACCOUNT,
            domain=DOMAIN,
            algorithms=("rsa",),
            new_standby=(dkim_key(selector, DkimKeyState.STANDBY),),
            now=NOW,
            must_be_seen=False,
            known=keys,
        )
        for selector in ("c", "d")
    ]
    _, refused = race(*units)
    assert isinstance(refused, KeysChangedError)
    found = {key.selector: key.state.value for key in race.run(FindDkimKeys(ACCOUNT, (DOMAIN,)))}
    assert found == {"a": "retired", "b": "active", "c": "standby"}


LIMITS = {
    "account": (VerificationLimits(per_account=1), ACCOUNT),
    "address": (VerificationLimits(per_address=1), OTHER),
    "all": (VerificationLimits(in_all=1), OTHER),
}


@pytest.mark.parametrize(("limits", "other"), LIMITS.values(), ids=LIMITS.keys())
def test_no_verification_mail_too_many(race, limits, other):
    address = "a@example.com"

    def request(number, account):
        mail = a_bounce(f"m{number}", address, NOW, original_message_id="", account_id=account)
        asked = replace(identity(address), account_id=account)
        return RequestMailVerification(asked, lambda _: mail, limits=limits)

    _, refused = race(request(1, ACCOUNT), request(2, other))
    assert isinstance(refused, TooManyVerificationMailsError)


# --- what does not wait -----------------------------------------------------------------------


def test_changes_of_two_accounts_do_not_deadlock(race):
    """Both change the generation."""
    for account in (ACCOUNT, OTHER):
        race.run(AddRuleSet(account, "set", NOW, 9))
    units = [
        lambda c, a=account, b=other: (
            ActivateRuleSet(a, "set")(c),
            AddAccount(f"{b[0]}99900000000", NOW)(c),
        )
        for account, other in ((ACCOUNT, OTHER), (OTHER, ACCOUNT))
    ]
    for found in race(*units):
        assert not isinstance(found, Exception)
    assert len(race.run(ListFilters(ACCOUNT))) == 0


def test_sweeps_of_two_nodes_are_not_at_the_same_time(race):
    old_version(race)
    step = SweepAlone(ForgetVersions(before=NOW))
    first, second = race(step, step)
    assert (first.count > 0, second.count) == (True, 0)
    assert not race.waits(step, step)


def test_dates_are_those_of_the_last_change(race):
    old_version(race)
    race.run(return_to_it())
    kept = race.query("SELECT count(*) FROM rule_set_versions WHERE kept_at < 0")
    assert kept == [(0,)]
    assert race.query("SELECT max(kept_at) FROM rule_set_versions") == [(to_milliseconds(NOW),)]
