"""The services of one process, created from the settings. `serving` runs them."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from sendback.clock import AdjustableClock, SystemClock
from sendback.config.settings import SettingError, Settings
from sendback.config.types import Listen
from sendback.crypto.sealing import Sealing
from sendback.ids import IdMaker, RandomIds, process_name
from sendback.store.engine.store import Store
from sendback.store.engine.wakeups import Subject

if TYPE_CHECKING:
    from sendback.actions.backends import ActionBackends
    from sendback.actions.function_environment import FunctionEnvironment
    from sendback.api.connections import ConnectionSettings, HttpLimits
    from sendback.api.dispatch import Dispatcher
    from sendback.config.loading import LoadedSettings
    from sendback.console.routes import Console
    from sendback.console.services import Finding, SettingRow
    from sendback.delivery.worker import DeliveryWorker
    from sendback.inspection.http import InspectionApi
    from sendback.mail.address import Mailbox
    from sendback.net.resolver import Resolver
    from sendback.s3.server import S3App
    from sendback.service.access.accounts import Accounts
    from sendback.service.access.authorization import Authorization
    from sendback.service.access.keys import Keys
    from sendback.service.access.passwords import Passwords
    from sendback.service.access.sessions import Sessions
    from sendback.service.bouncing.composing import HumanPart
    from sendback.service.bouncing.send_bounce import Bouncing
    from sendback.service.database_clock import DatabaseClock
    from sendback.service.events.bus import EventBus
    from sendback.service.events.counters import Counters
    from sendback.service.events.exchange import EventExchange
    from sendback.service.faults.faults import Faults
    from sendback.service.heavy import HeavyWork
    from sendback.service.housekeeping import Housekeeping
    from sendback.service.identities.attributes import IdentityAttributes
    from sendback.service.identities.dns_checks import IdentityChecks
    from sendback.service.identities.identities import Identities
    from sendback.service.identities.policies import IdentityPolicies
    from sendback.service.identities.signing import Signing
    from sendback.service.identities.verification import Verification
    from sendback.service.identities.verification_templates import VerificationTemplates
    from sendback.service.nodes import NodeRecord
    from sendback.service.outbox.control import OutboxControl
    from sendback.service.outbox.statistics import SendingStatistics
    from sendback.service.readiness import Readiness
    from sendback.service.receiving.acceptance import Acceptance
    from sendback.service.receiving.injection import Injector
    from sendback.service.receiving.receiving import Receiving
    from sendback.service.rules.apply_setup import SetupService
    from sendback.service.rules.compiled import CompiledRuleSets
    from sendback.service.rules.control import ProcessingControl
    from sendback.service.rules.filters import Filters
    from sendback.service.rules.rounds import Rounds
    from sendback.service.rules.rule_sets import RuleSets
    from sendback.service.rules.steps import Steps
    from sendback.service.rules.targets import Targets
    from sendback.service.rules.worker import ProcessingWorker
    from sendback.smtp.machine import RefusedCommand
    from sendback.smtp.server import SmtpServer, SmtpSettings
    from sendback.verdicts.checks import MailChecks


# Dates end in the year 9999, and messages expire some time after the date.
MAX_ADVANCE = timedelta(days=36_500)
# For work in progress when the clock is moved.
_PATIENCE_SECONDS = 5.0


class App:
    """The services and workers of one process, each created on first use.

    A module is imported where its service is created: most commands need a few of them, and
    importing all takes half a second.
    """

    def __init__(
        self,
        settings: Settings,
        clock: AdjustableClock | None = None,
        ids: IdMaker | None = None,
        http: Listen | None = None,
        smtp_address: Listen | None = None,
        loaded: "LoadedSettings | None" = None,
    ) -> None:
        """`http` is the address of the API's socket, `smtp_address` SMTP's; None: the setting.

        `loaded` has the origins of the settings, for the console.
        """
        self.settings = settings
        self.clock = clock or SystemClock(settings.clock_offset)
        self.ids = ids or RandomIds()
        self.http = http or settings.http_listen
        self.smtp_address = smtp_address or settings.smtp_listen
        self._owner = process_name()  # of leases
        self.store = Store(
            settings.database_url,
            settings.data_dir,
            settings.content_address,
            process=self._owner,
            listen_url=settings.listen_database,
        )
        self.loaded = loaded
        # Carries out the checks of `sendback doctor`; a server sets it for the console.
        self.examine: Callable[[], Awaitable[Sequence[Finding]]] | None = None
        self._advanced = timedelta(0)  # how far the clock was moved
        # Rows that ended their worker are processed one at a time, in all queues together.
        self._suspects = asyncio.Lock()

    # --- shared by the services ---------------------------------------------------------------

    @cached_property
    def heavy(self) -> "HeavyWork":
        from sendback.service.heavy import HeavyWork

        return HeavyWork()

    @cached_property
    def events(self) -> "EventBus":
        from sendback.service.events.bus import EventBus

        return EventBus()

    @cached_property
    def event_exchange(self) -> "EventExchange":
        """What exchanges events with other processes: workers, nodes, commands."""
        from sendback.service.events.exchange import EventExchange

        return EventExchange(self.events, self.store.channel)

    @cached_property
    def counters(self) -> "Counters":
        """What counts the events of this process."""
        from sendback.service.events.counters import Counters

        return Counters(self.store)

    @cached_property
    def rounds(self) -> "Rounds":
        from sendback.service.rules.rounds import Rounds

        return Rounds()

    @cached_property
    def sealing(self) -> Sealing:
        return Sealing(self.settings.secret_path, self.settings.secret)

    @cached_property
    def readiness(self) -> "Readiness":
        from sendback.service.readiness import Readiness

        return Readiness(self.store, self.clock)

    @cached_property
    def database_clock(self) -> "DatabaseClock":
        from sendback.service.database_clock import DatabaseClock

        return DatabaseClock(self.store, self.clock)

    @cached_property
    def housekeeping(self) -> "Housekeeping":
        from sendback.service.housekeeping import Housekeeping

        return Housekeeping(self.store, self.clock, self.settings.history, owner=self._owner)

    @cached_property
    def node(self) -> "NodeRecord":
        from sendback.service.nodes import NodeRecord

        return NodeRecord(self.store, self._owner)

    @cached_property
    def faults(self) -> "Faults":
        from sendback.service.faults.faults import Faults

        outbound = self.settings.outbound
        return Faults(
            self.store,
            self.clock,
            self.events,
            by_mx=outbound.by_mx,
            captures=outbound.captures,
        )

    # --- accounts and identities --------------------------------------------------------------

    @cached_property
    def accounts(self) -> "Accounts":
        from sendback.service.access.accounts import Accounts

        return Accounts(self.store, self.clock)

    @cached_property
    def keys(self) -> "Keys":
        from sendback.service.access.keys import Keys

        settings = self.settings
        return Keys(
            self.store,
            self.clock,
            self.sealing,
            settings.account_id if settings.development_key else None,
        )

    @cached_property
    def passwords(self) -> "Passwords":
        from sendback.service.access.passwords import Passwords

        return Passwords(self.store, self.clock)

    @cached_property
    def console_sessions(self) -> "Sessions":
        from sendback.service.access.sessions import Sessions

        return Sessions(
            self.store,
            self.clock,
            self.keys,
            self.passwords,
            lasts=self.settings.console_session,
            idle=self.settings.console_idle,
        )

    @cached_property
    def authorization(self) -> "Authorization":
        from sendback.service.access.authorization import Authorization

        return Authorization(self.clock, self.settings.region)

    @cached_property
    def verification(self) -> "Verification":
        from sendback.service.identities.verification import Verification
        from sendback.service.identities.verification_links import Links
        from sendback.service.identities.verification_mails import MailSettings, VerificationMails
        from sendback.store.identities.verification_mails import VerificationLimits

        settings = self.settings
        lasts = settings.verification_link_lasts
        mail_settings = MailSettings(
            sender=_verification_sender(settings),
            hostname=settings.hostname,
            region=settings.region,
            lasts=lasts,
            give_up_after=settings.give_up_after,
        )
        return Verification(
            self.store,
            self.clock,
            Links(self.sealing, self.clock, self._public_url, lasts),
            VerificationMails(self.ids, mail_settings),
            at_once=settings.verifies_at_once,
            limits=VerificationLimits(
                per_account=settings.verification_account_limit,
                per_address=settings.verification_address_limit,
                in_all=settings.verification_limit,
            ),
            events=self.events,
        )

    @cached_property
    def signing(self) -> "Signing":
        from sendback.service.identities.signing import Signing

        return Signing(self.store, self.clock, self.sealing)

    @cached_property
    def identities(self) -> "Identities":
        from sendback.service.identities.dkim_keys import DkimKeyMaker
        from sendback.service.identities.identities import Identities

        return Identities(
            self.store,
            self.clock,
            self.verification,
            DkimKeyMaker(self.sealing, ed25519=self.settings.dkim_ed25519),
            self.settings.region,
            self.events,
        )

    @cached_property
    def identity_attributes(self) -> "IdentityAttributes":
        from sendback.service.identities.attributes import IdentityAttributes

        return IdentityAttributes(
            self.store, self.clock, self.verification, self.settings.region, self.events
        )

    @cached_property
    def identity_policies(self) -> "IdentityPolicies":
        from sendback.service.identities.policies import IdentityPolicies

        return IdentityPolicies(self.store, self.clock, self.settings.region, self.events)

    @cached_property
    def verification_templates(self) -> "VerificationTemplates":
        from sendback.service.identities.verification_templates import VerificationTemplates

        return VerificationTemplates(
            self.store, self.identities, self.verification, self.settings.region
        )

    @cached_property
    def identity_checks(self) -> "IdentityChecks":
        from sendback.service.identities.dns_checks import IdentityChecks

        resolver = _resolver(self.settings, cached=False)
        return IdentityChecks(
            self.store,
            self.clock,
            resolver,
            hostname=self.settings.hostname,
            at_once=self.settings.verifies_at_once,
            suspects=self._suspects,
            events=self.events,
        )

    # --- bounces and their delivery -----------------------------------------------------------

    @cached_property
    def bouncing(self) -> "Bouncing":
        from sendback.service.bouncing.access import BounceAccess
        from sendback.service.bouncing.composing import BounceComposer
        from sendback.service.bouncing.send_bounce import Bouncing, BouncingParts

        settings = self.settings
        return Bouncing(
            BouncingParts(
                store=self.store,
                clock=self.clock,
                access=BounceAccess(self.authorization, settings.region, settings.bounce_window),
                composer=BounceComposer(
                    self.store,
                    self.ids,
                    hostname=settings.hostname,
                    human=_human_part(settings),
                    lifetime=settings.give_up_after,
                ),
                heavy=self.heavy,
                rate=settings.send_bounce_rate,
                honour_notify_never=settings.honour_notify_never,
                events=self.events,
            )
        )

    @cached_property
    def delivery(self) -> "DeliveryWorker":
        from sendback.delivery.outbound import delivery_worker

        return delivery_worker(
            self.settings,
            self.store,
            self.clock,
            self.signing.sign,
            self.faults,
            owner=self._owner,
            suspects=self._suspects,
            events=self.events,
        )

    def serve_queues(self) -> None:
        """Let the workers of this process be woken: by its own transactions, and by others'."""
        self.store.channel.start()
        self.store.wakeups.serve(Subject.DELIVERY, self.delivery)
        self.store.wakeups.serve(Subject.PROCESSING, self.processing)

    @cached_property
    def outbox(self) -> "OutboxControl":
        from sendback.service.outbox.control import OutboxControl

        return OutboxControl(self.store, self.clock, self.settings.give_up_after)

    @cached_property
    def sending(self) -> "SendingStatistics":
        from sendback.service.outbox.statistics import SendingStatistics

        settings = self.settings
        return SendingStatistics(
            self.store, self.clock, quota=settings.send_quota, rate=settings.send_rate
        )

    # --- receiving and rules ------------------------------------------------------------------

    @cached_property
    def messages(self) -> "ProcessingControl":
        from sendback.service.rules.control import ProcessingControl

        return ProcessingControl(self.store, self.clock)

    @cached_property
    def action_backends(self) -> "ActionBackends":
        from sendback.actions.backends import ActionBackends
        from sendback.actions.signing_key import SigningKey

        settings = self.settings
        earlier_file = settings.data_dir / "sns.pem"
        key = SigningKey(self.store, self.sealing, settings.hostname, earlier_file)
        return ActionBackends(
            settings, self.clock, self._public_url, self.function_environment, key
        )

    @cached_property
    def function_environment(self) -> "FunctionEnvironment":
        """The environment of local functions, with which their AWS clients find this server."""
        from sendback.actions.function_environment import Endpoints, FunctionEnvironment
        from sendback.api.closed_services import PATH

        server = f"http://{self.http}"
        endpoints = Endpoints(server, server + PATH)
        return FunctionEnvironment(self.settings, endpoints, self.store, self.keys)

    @cached_property
    def targets(self) -> "Targets":
        from sendback.service.rules.targets import Targets

        return Targets(
            self.store,
            self.action_backends.ports,
            _defaults(self.settings),
            check_rules=self.settings.check_targets,
        )

    @cached_property
    def filters(self) -> "Filters":
        from sendback.service.rules.filters import Filters

        return Filters(self.store, self.clock, self.events)

    @cached_property
    def rule_sets(self) -> "RuleSets":
        from sendback.service.rules.rule_sets import RuleSets

        return RuleSets(self.store, self.clock, self.targets, self.events)

    @cached_property
    def setup(self) -> "SetupService":
        from sendback.service.rules.apply_setup import SetupService

        return SetupService(
            self.store, self.clock, self.identities, self.targets, self.faults, self.events
        )

    @cached_property
    def compiled(self) -> "CompiledRuleSets":
        from sendback.service.rules.compiled import CompiledRuleSets

        return CompiledRuleSets(self.store)

    @cached_property
    def mail_checks(self) -> "MailChecks":
        """The checks that find the verdicts. Close it, as it may have started processes."""
        from sendback.verdicts.checks import MailChecks
        from sendback.verdicts.processes import VerdictProcesses
        from sendback.verdicts.scanners import Clamd, Rspamd

        settings = self.settings
        processes = None
        if settings.dns != "off":
            processes = VerdictProcesses(
                settings.dns_servers,
                processes=settings.verdict_processes,
                seconds=settings.dns_budget.total_seconds(),
            )
        return MailChecks(
            processes,
            Rspamd(settings.rspamd) if settings.rspamd else None,
            Clamd(settings.clamd) if settings.clamd else None,
        )

    @cached_property
    def steps(self) -> "Steps":
        """Carries out the steps of rules."""
        from sendback.service.rules.steps import Steps

        hostname = self.settings.hostname
        return Steps(
            self.action_backends.ports,
            self.targets,
            self.bouncing,
            self.heavy,
            self.rounds,
            self.clock,
            self.faults,
            hostname,
        )

    @cached_property
    def processing(self) -> "ProcessingWorker":
        from sendback.service.queues.retry import Backoff
        from sendback.service.rules.run import ProcessingParts
        from sendback.service.rules.worker import ProcessingWorker

        settings = self.settings
        parts = ProcessingParts(
            store=self.store,
            clock=self.clock,
            rule_sets=self.compiled,
            steps=self.steps,
            authenticator=self.mail_checks,
            bouncing=self.bouncing,
            rounds=self.rounds,
            events=self.events,
            backoff=Backoff(settings.action_retry_first, settings.action_retry_longest),
            give_up_after=settings.action_give_up_after,
            lease=settings.lease,
            owner=self._owner,
            fails_closed=settings.function_failure == "stop",
        )
        return ProcessingWorker(
            parts, concurrency=settings.processing_tasks, suspects=self._suspects
        )

    @cached_property
    def acceptance(self) -> "Acceptance":
        from sendback.service.receiving.acceptance import Acceptance

        return Acceptance(
            self.store,
            self.compiled,
            receive_without_rules=self.settings.receive_without_rules,
        )

    @cached_property
    def receiving(self) -> "Receiving":
        from sendback.service.receiving.receiving import Receiving

        return Receiving(
            self.store,
            self.clock,
            self.ids,
            self.processing,
            hostname=self.settings.hostname,
            retention=self.settings.retention,
            events=self.events,
        )

    # --- the servers --------------------------------------------------------------------------

    @cached_property
    def dispatcher(self) -> "Dispatcher":
        from sendback.api.authentication import Authenticator
        from sendback.api.dispatch import Dispatcher
        from sendback.api.services import Services

        return Dispatcher(
            Services(
                heavy=self.heavy,
                bouncing=self.bouncing,
                identities=self.identities,
                identity_attributes=self.identity_attributes,
                identity_policies=self.identity_policies,
                filters=self.filters,
                rule_sets=self.rule_sets,
                sending=self.sending,
                verification_templates=self.verification_templates,
            ),
            Authenticator(self.keys, self.clock, self.settings.region),
            self.authorization,
            self.ids,
            self.faults,
        )

    @cached_property
    def objects(self) -> "S3App":
        """The small S3 for buckets that are directories."""
        from sendback.s3.authentication import S3Authenticator
        from sendback.s3.buckets import Buckets
        from sendback.s3.server import S3App

        return S3App(
            S3Authenticator(self.keys, self.clock, self.settings.region),
            self.authorization,
            Buckets(self.targets),
            self.ids,
            self.settings.smtp_min_free,
        )

    @cached_property
    def smtp(self) -> "SmtpServer":
        """The SMTP server, created on first use: other commands need no certificate."""
        from sendback.smtp.server import SmtpServer

        return SmtpServer(
            _smtp_settings(self.settings),
            self.acceptance,
            self.receiving,
            self.faults,
            _tls(self.settings),
            self._report_refusal,
        )

    def _report_refusal(self, client_ip: str, refusal: "RefusedCommand") -> None:
        from sendback.service.events import reports

        self.events.publish(
            reports.refused(
                self.clock.now(),
                client=client_ip,
                command=refusal.command,
                reply=refusal.reply.text,
                sender=refusal.sender,
                recipients=refusal.recipients,
            )
        )

    @cached_property
    def inspection(self) -> "InspectionApi":
        from sendback.inspection.access import AccessRule
        from sendback.inspection.http import InspectionApi
        from sendback.inspection.services import InspectionServices, ServerControl
        from sendback.inspection.waiting import Waiting
        from sendback.service.inspection import MailInspection

        settings = self.settings
        services = InspectionServices(
            accounts=self.accounts,
            mail=MailInspection(self.store),
            messages=self.messages,
            injector=lambda: self.injector,
            events=self.events,
            waiting=Waiting(self.events),
            faults=self.faults,
            control=ServerControl(
                self.clock.now,
                self.advance,
                self.reset,
                settings.workers,
                settings.outbound.by_mx,
            ),
            account_id=settings.account_id,
            region=settings.region,
        )
        by_mx = settings.outbound.by_mx
        return InspectionApi(
            services, AccessRule(self.http, settings.inspection_token, by_mx=by_mx)
        )

    @cached_property
    def console(self) -> "Console":
        """The web console, which is made when somebody opens it."""
        from sendback.console.access import Access
        from sendback.console.routes import Console
        from sendback.console.services import ConsoleServices
        from sendback.service.access.audit import Audit
        from sendback.service.inspection import MailInspection
        from sendback.service.rules.dry_run import DryRun

        settings = self.settings
        services = ConsoleServices(
            settings=settings,
            now=self.clock.now,
            http=str(self.http),
            smtp=str(self.smtp_address),
            store=self.store,
            ses=self.dispatcher,
            accounts=self.accounts,
            keys=self.keys,
            authorization=self.authorization,
            mail=MailInspection(self.store),
            messages=self.messages,
            outbox=self.outbox,
            bouncing=self.bouncing,
            rule_sets=self.rule_sets,
            filters=self.filters,
            targets=self.targets,
            compiled=self.compiled,
            identities=self.identities,
            identity_attributes=self.identity_attributes,
            identity_policies=self.identity_policies,
            identity_checks=lambda: self.identity_checks,
            events=self.events,
            faults=self.faults,
            injector=lambda: self.injector,
            ports=lambda: self.action_backends.ports,
            dry_run=lambda: DryRun(self.store, self.clock, self.targets, self.mail_checks),
            is_ready=self.readiness.is_ready,
            passwords=self.passwords,
            sessions=self.console_sessions,
            audit=Audit(self.store, self.clock),
            setting_rows=lambda: _setting_rows(settings, self.loaded),
            doctor=self.examine,
        )
        access = Access(settings, self.http, self.sealing, self.console_sessions)
        return Console(services, access)

    @cached_property
    def injector(self) -> "Injector":
        from sendback.smtp.injection import SmtpInjector

        return SmtpInjector(self.smtp)

    @cached_property
    def http_limits(self) -> "HttpLimits":
        """The limits that all HTTP connections of this process share."""
        from sendback.api.connections import HttpLimits

        return HttpLimits(_connection_settings(self.settings), self.dispatcher.refuse)

    @property
    def _public_url(self) -> str:
        return self.settings.public_url or f"http://{self.http}"

    async def check_secret(self) -> None:
        """Check that the database's keys are sealed with this secret.

        Raise `SecretError`, `StoreUnavailableError`.
        """
        await check_secret(self.store, self.sealing)

    async def advance(self, by: timedelta) -> None:
        """Move the clock forward; workers look at once for what is due by the new date.

        Work in progress is waited for, for some seconds. Raise `ValueError` for a negative
        duration, and for a total of more than `MAX_ADVANCE`.
        """
        if not timedelta(0) <= by <= MAX_ADVANCE - self._advanced:
            raise ValueError(
                f"the clock can only be moved forward, by {MAX_ADVANCE.days} days in all at most, "
                f"not by {by}"
            )
        self._advanced += by
        async with contextlib.AsyncExitStack() as idle:
            for worker in self._queue_workers():
                await idle.enter_async_context(worker.idle(_PATIENCE_SECONDS))
            self.clock.advance(by)
            for worker in self._queue_workers():
                await worker.clock_moved()
        for name in ("housekeeping", "identity_checks"):
            if name in self.__dict__:
                getattr(self, name).wake()

    async def reset(self) -> None:
        """Delete everything but the first account and the installation's keys.

        Work in progress is cancelled, and the clock is moved back: no row has a date now. Raise
        `StoreUnavailableError`.
        """
        from sendback.store.access.accounts import AddAccount
        from sendback.store.engine.clearing import ClearTables

        async with contextlib.AsyncExitStack() as suspended:
            for worker in self._queue_workers():
                await suspended.enter_async_context(worker.suspended())
            self.clock.reset()
            self._advanced = timedelta(0)
            account = AddAccount(self.settings.account_id, self.clock.now())
            await self.store.write(ClearTables(account))
            await self.store.contents.clear()
            self.events.forget()
            self.counters.forget()
            if "action_backends" in self.__dict__:
                await self.action_backends.restart_functions()

    def _queue_workers(self) -> "list[DeliveryWorker | ProcessingWorker]":
        """Return the workers that this process has: commands have none."""
        found = (self.__dict__.get(name) for name in ("processing", "delivery"))
        return [worker for worker in found if worker is not None]

    def close(self) -> None:
        for name in ("heavy", "signing"):
            if name in self.__dict__:
                getattr(self, name).close()
        self.store.close()


async def check_secret(store: Store, sealing: Sealing) -> None:
    """Check that the database's keys are sealed with this secret.

    Raise `SecretError`, `StoreUnavailableError`.
    """
    from sendback.crypto.sealing import SecretError
    from sendback.store.access.installation import FindValue, GetOrSet

    advice = (
        "all nodes of an installation have the same one: copy secret.key from the data directory "
        f"of another node to {sealing.file}, or give all nodes the same SENDBACK_SECRET"
    )
    if sealing.is_missing and await store.read(FindValue("secret")) is not None:
        raise SecretError(
            f"the keys in this database are sealed with a secret that is not here; {advice}"
        )
    fingerprint = sealing.fingerprint
    if await store.write(GetOrSet("secret", fingerprint)) != fingerprint:
        raise SecretError(
            "the keys in this database are sealed with another secret than "
            f"{sealing.origin}: put the right one in its place; {advice}"
        )


def check_settings(settings: Settings) -> None:
    """Check the settings by creating the parts that use them. Raise `SettingError`.

    This also creates the certificate that all workers share.
    """
    from sendback.delivery.outbound import trust_of

    _check_content_store(settings)
    _human_part(settings)
    _verification_sender(settings)
    _tls(settings)
    if settings.tls_ca_file:
        trust_of(settings)


def _check_content_store(settings: Settings) -> None:
    """Refuse a directory as the content store of several nodes. Raise `SettingError`."""
    is_directory = settings.content_address.kind == "directory"
    if is_directory and not settings.database_file and not settings.share_data_dir:
        allowed = (
            "with PostgreSQL another node would not find the content: use database or an object "
            "store; if all nodes have the same data directory, set share_data_dir to true"
        )
        raise SettingError("content_store", "directory", "the settings", allowed)


def _setting_rows(settings: Settings, loaded: "LoadedSettings | None") -> "list[SettingRow]":
    from sendback.console.services import SettingRow

    rows = []
    for entry in fields(Settings):
        text, origin = str(getattr(settings, entry.name)), "the program"
        if entry.metadata["hidden"] or entry.metadata["is_url"]:
            text = "(hidden)" if getattr(settings, entry.name) else ""
        if loaded is not None:
            text, origin = loaded.texts[entry.name], loaded.origins[entry.name]
        rows.append(SettingRow(entry.name, text, origin, entry.metadata["about"]))
    return rows


def _connection_settings(settings: Settings) -> "ConnectionSettings":
    from sendback.api.connections import ConnectionSettings
    from sendback.descriptors import http_connections

    places = http_connections(settings)
    return ConnectionSettings(
        max_connections=places,
        max_client_connections=min(places, settings.http_max_client_connections),
        header_timeout=settings.http_header_timeout.total_seconds(),
        body_timeout=settings.http_body_timeout.total_seconds(),
        idle_timeout=settings.http_idle_timeout.total_seconds(),
    )


def _smtp_settings(settings: Settings) -> "SmtpSettings":
    from sendback.smtp.server import SmtpSettings
    from sendback.smtp.session import SessionLimits
    from sendback.smtp.timeouts import TimeoutSettings

    return SmtpSettings(
        hostname=settings.hostname,
        limits=SessionLimits(
            content=settings.smtp_max_size,
            recipients=settings.smtp_max_recipients,
            errors=settings.smtp_max_errors,
        ),
        max_connections=settings.smtp_max_connections,
        max_client_connections=settings.smtp_max_client_connections,
        timeouts=TimeoutSettings(
            idle=settings.smtp_idle_timeout.total_seconds(),
            session=settings.smtp_session_timeout.total_seconds(),
        ),
        directory=settings.data_dir,
        min_free=settings.smtp_min_free,
        test_verdicts=settings.test_verdicts,
    )


def _tls(settings: Settings) -> ssl.SSLContext:
    from sendback.smtp.tls import server_context

    try:
        return server_context(
            settings.tls_certificate, settings.tls_key, settings.data_dir, settings.hostname
        )
    except (ssl.SSLError, OSError) as error:
        value = str(settings.tls_certificate or settings.data_dir / "tls.pem")
        allowed = f"a PEM certificate with its key: {error}"
        raise SettingError("tls_certificate", value, "the settings", allowed) from None


def _human_part(settings: Settings) -> "HumanPart":
    """Return the built-in languages and the operator's, which override them."""
    from sendback.dsn.texts import TextsError, builtin_texts, parse_texts
    from sendback.service.bouncing.composing import HumanPart

    languages = dict(builtin_texts())
    folder = settings.bounce_texts
    for file in sorted(folder.glob("*.toml")) if folder else ():
        try:
            languages[file.stem] = parse_texts(file.stem, file.read_text("utf-8"))
        except (TextsError, OSError, UnicodeDecodeError) as error:
            raise SettingError("bounce_texts", str(file), "the settings", str(error)) from None
    if settings.bounce_language not in {"auto", *languages}:
        allowed = f"auto, or one of {', '.join(sorted(languages))}"
        raise SettingError("bounce_language", settings.bounce_language, "the settings", allowed)
    return HumanPart(languages, settings.bounce_language, settings.return_content == "full")


def _verification_sender(settings: Settings) -> "Mailbox":
    from sendback.mail.address import AddressError, parse_mailbox

    given = settings.verification_sender
    try:
        return parse_mailbox(given or f"no-reply@{settings.hostname}")
    except AddressError as error:
        raise SettingError("verification_sender", given, "the settings", str(error)) from None


def _resolver(settings: Settings, *, cached: bool) -> "Resolver | None":
    from sendback.net.resolver import Resolver

    if settings.dns == "off":
        return None
    return Resolver(settings.dns_servers, cached=cached)


def _defaults(settings: Settings) -> dict[str, str]:
    from sendback.service.rules.targets import BUCKET, FUNCTION, MAILBOX, TOPIC

    return {
        BUCKET: settings.endpoint(settings.s3_endpoint),
        TOPIC: settings.endpoint(settings.sns_endpoint),
        FUNCTION: settings.endpoint(settings.lambda_endpoint),
        MAILBOX: settings.mailbox_server,
    }
