"""Templates of verification mails. SES API: CustomVerificationEmailTemplate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError
from sendback.store.engine.locking import lock_account
from sendback.store.engine.tables import verification_templates


@dataclass(frozen=True, slots=True)
class VerificationTemplate:
    """SES API: CustomVerificationEmailTemplate."""

    account_id: str
    name: str
    from_address: str
    subject: str
    content: str
    success_url: str
    failure_url: str


_COLUMNS = verification_templates.c


@dataclass(frozen=True, slots=True)
class AddTemplate:
    """Add a template. Raises `AlreadyExistsError`, or `LimitReachedError` at `limit`."""

    template: VerificationTemplate
    limit: int

    def __call__(self, connection: Connection, /) -> None:
        new = self.template
        lock_account(connection, new.account_id)
        if find_template(connection, new.account_id, new.name):
            raise AlreadyExistsError("template", new.name)
        count = select(func.count()).where(_COLUMNS.account_id == new.account_id)
        if connection.execute(count).scalar_one() >= self.limit:
            raise LimitReachedError("templates of an account", self.limit)
        connection.execute(insert(verification_templates), asdict(new))


@dataclass(frozen=True, slots=True)
class ChangeTemplate:
    """Set the `given` fields of a template, if it exists. Return whether it does.

    Only these: concurrent calls may change others.
    """

    account_id: str
    name: str
    given: Mapping[str, str]

    def __call__(self, connection: Connection, /) -> bool:
        if not self.given:
            return find_template(connection, self.account_id, self.name) is not None
        where = _where(self.account_id, self.name)
        statement = update(verification_templates).where(*where).values(self.given)
        return connection.execute(statement).rowcount > 0


@dataclass(frozen=True, slots=True)
class FindTemplate:
    """Return the account's template of that name, or None."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> VerificationTemplate | None:
        return find_template(connection, self.account_id, self.name)


@dataclass(frozen=True, slots=True)
class DeleteTemplate:
    """Delete a template. Return whether it existed."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> bool:
        where = _where(self.account_id, self.name)
        return connection.execute(delete(verification_templates).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class ListTemplates:
    """Return up to `limit` templates after the name `after`, in order of name."""

    account_id: str
    after: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[VerificationTemplate]:
        query = (
            select(verification_templates)
            .where(_COLUMNS.account_id == self.account_id, _COLUMNS.name > self.after)
            .order_by(_COLUMNS.name)
            .limit(self.limit)
        )
        return [_from_row(row) for row in connection.execute(query)]


def find_template(
    connection: Connection, account_id: str, name: str
) -> VerificationTemplate | None:
    """Return the account's template of that name, or None."""
    query = select(verification_templates).where(*_where(account_id, name))
    row = connection.execute(query).first()
    return _from_row(row) if row else None


def _where(account_id: str, name: str) -> tuple[Any, Any]:
    return _COLUMNS.account_id == account_id, _COLUMNS.name == name


def _from_row(row: Any) -> VerificationTemplate:
    return VerificationTemplate(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
