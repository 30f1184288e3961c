"""Counters and charts: what was received, refused, bounced and delivered, and what waits."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.charts import HEIGHT, WIDTH, Chart, Series, chart
from sendback.dsn.statuses import STATUS_TEXTS
from sendback.service.events.counters import OTHER, Counted
from sendback.store.events.counters import HOUR, MINUTE, Count, ReadCounts
from sendback.store.outbox.overview import COUNTED, ReadQueue

_ROWS = 20


@dataclass(frozen=True, slots=True)
class Period:
    """What is shown: `bars` of `step` seconds each, from rows of `width` seconds."""

    key: str
    name: str
    width: int
    step: int
    bars: int
    form: str
    ends: tuple[str, ...]

    def begins(self, now: datetime) -> list[datetime]:
        """Return the beginnings of the bars; the last one has begun and is not over."""
        last = int(now.timestamp()) // self.step * self.step
        first = datetime.fromtimestamp(last, UTC) - timedelta(seconds=self.step * (self.bars - 1))
        return [first + timedelta(seconds=self.step * index) for index in range(self.bars)]


PERIODS = {
    period.key: period
    for period in (
        Period("hour", "Last hour", MINUTE, 60, 60, "%H:%M UTC", ("1 h ago", "30 min ago", "now")),
        Period("day", "Last day", HOUR, 3600, 24, "%H:%M UTC", ("24 h ago", "12 h ago", "now")),
        Period(
            "week", "Last week", HOUR, 6 * 3600, 28, "%a %d %b %H:%M UTC", ("7 days ago", "now")
        ),
    )
}


@dataclass(slots=True)
class Sums:
    """The counters of the period, by kind."""

    steps: int
    by_step: dict[str, list[int]] = field(default_factory=dict)
    by_detail: dict[str, Counter[str]] = field(default_factory=dict)
    by_source: dict[str, list[int]] = field(default_factory=dict)

    def add(self, count: Count) -> None:
        """Add a counter."""
        if not 0 <= count.step < self.steps:
            return  # of a clock that is ahead
        self._row(self.by_step, count.kind)[count.step] += count.number
        self.by_detail.setdefault(count.kind, Counter())[count.detail] += count.number
        if count.kind == Counted.BOUNCED:
            source = count.detail.partition(" ")[0]
            self._row(self.by_source, source)[count.step] += count.number

    def series(self, name: str, tone: str, kind: Counted) -> Series:
        """Return the numbers of a kind."""
        return Series(name, tone, self._row(self.by_step, kind))

    def bounces(self, name: str, tone: str, source: str) -> Series:
        """Return the numbers of the bounces by the API or by rules."""
        return Series(name, tone, self._row(self.by_source, source))

    def details(self, kind: Counted) -> Counter[str]:
        """Return the numbers of a kind by their details."""
        return self.by_detail.get(kind, Counter())

    def total(self, kind: Counted) -> int:
        """Return the number of a kind in the whole period."""
        return self.details(kind).total()

    def _row(self, rows: dict[str, list[int]], name: str) -> list[int]:
        return rows.setdefault(name, [0] * self.steps)


async def show(call: PageCall) -> Response:
    """Show the figures of a period."""
    call.permit("sendback:ReadMail")
    period = PERIODS.get(call.text("period"), PERIODS["hour"])
    is_whole = call.viewer.is_operator and call.text("account") != "own"
    account_id = None if is_whole else call.account_id
    store, now = call.services.store, call.services.now()
    begins = period.begins(now)
    sums = Sums(period.bars)
    for count in await store.read(ReadCounts(account_id, period.width, begins[0], period.step)):
        sums.add(count)
    queue = await store.read(ReadQueue(account_id))
    return call.page(
        "overview/figures.html" if call.target == "figures" else "overview/overview.html",
        now=now,
        period=period,
        periods=PERIODS.values(),
        is_whole=is_whole,
        more="" if is_whole or not call.viewer.is_operator else "&account=own",
        numbers=_numbers(sums, is_whole=is_whole),
        queue=queue,
        counted=COUNTED,
        charts=_charts(sums, period, begins, is_whole=is_whole),
        refused=_reasons(sums.details(Counted.REFUSED), _reply),
        bounced=_reasons(sums.details(Counted.BOUNCED), _bounce),
        domains=_domains(sums),
        width=WIDTH,
        height=HEIGHT,
    )


def _numbers(sums: Sums, *, is_whole: bool) -> list[tuple[str, int, str]]:
    """Return names, numbers and where the rows are, if a page lists them."""
    found = [("Received", sums.total(Counted.RECEIVED), "/mail")]
    if is_whole:
        found.append(("Refused", sums.total(Counted.REFUSED), ""))
    captured = sums.total(Counted.CAPTURED)
    return [
        *found,
        ("Bounced", sums.total(Counted.BOUNCED), "/bounces"),
        ("Delivered", sums.total(Counted.DELIVERED), ""),
        *([("Stored, not sent", captured, "")] if captured else []),
        ("Deferred attempts", sums.total(Counted.DEFERRED), ""),
        ("Failed", sums.total(Counted.FAILED), ""),
    ]


def _charts(
    sums: Sums, period: Period, begins: Sequence[datetime], *, is_whole: bool
) -> list[Chart]:
    received = [sums.series("received", "", Counted.RECEIVED)]
    if is_whole:
        received.append(sums.series("refused", "bad", Counted.REFUSED))
    bounces = [sums.bounces("by the API", "", "api"), sums.bounces("by rules", "info", "rule")]
    deliveries = [
        sums.series("delivered", "ok", Counted.DELIVERED),
        sums.series("deferred", "warn", Counted.DEFERRED),
        sums.series("failed", "bad", Counted.FAILED),
    ]
    if sums.total(Counted.CAPTURED):
        deliveries.append(sums.series("stored", "info", Counted.CAPTURED))
    named = {
        "Received and refused" if is_whole else "Received": received,
        "Bounces": bounces,
        "Delivery attempts": deliveries,
    }
    return [chart(name, found, begins, period.form, period.ends) for name, found in named.items()]


@dataclass(frozen=True, slots=True)
class Reason:
    """How often something happened for a reason."""

    code: str
    text: str
    number: int


def _reasons(details: Counter[str], explained: Callable[[str], tuple[str, str]]) -> list[Reason]:
    return [Reason(*explained(name), number) for name, number in details.most_common(_ROWS)]


def _reply(detail: str) -> tuple[str, str]:
    return detail, _meaning(detail)


def _bounce(detail: str) -> tuple[str, str]:
    source, _, status = detail.partition(" ")
    by = {"api": "by the API", "rule": "by a rule"}.get(source, source)
    meaning = _meaning(status)
    return status, f"{meaning}, {by}" if meaning else by


def _meaning(status: str) -> str:
    return STATUS_TEXTS.get(status.partition(".")[2], "")


@dataclass(frozen=True, slots=True)
class DomainRow:
    """The numbers of a domain."""

    name: str
    received: int
    delivered: int
    captured: int
    deferred: int
    failed: int


def _domains(sums: Sums) -> list[DomainRow]:
    """Return the domains with the most mail; the others of an hour together, at the end."""
    kinds = (
        Counted.RECEIVED,
        Counted.DELIVERED,
        Counted.CAPTURED,
        Counted.DEFERRED,
        Counted.FAILED,
    )
    counters = [sums.details(kind) for kind in kinds]
    names = _by_number(counters)
    rows = [DomainRow(name, *(found[name] for found in counters)) for name in names[:_ROWS]]
    rest = [name for name in (*names[_ROWS:], OTHER) if any(found[name] for found in counters)]
    if rest:
        sum_of = [sum(found[name] for name in rest) for found in counters]
        rows.append(DomainRow("all others", *sum_of))
    return rows


def _by_number(counters: Iterable[Counter[str]]) -> list[str]:
    whole: Counter[str] = Counter()
    for found in counters:
        whole.update(found)
    whole.pop(OTHER, None)
    return [name for name, _ in whole.most_common()]


PAGES = (Page("GET", "/overview", show),)
