"""The implementations of all ports of `service.rules.ports`, built from the settings."""

from collections.abc import Awaitable, Callable, Mapping

from sendback.actions.aws import AwsClients
from sendback.actions.functions import FunctionCallers
from sendback.actions.local_functions import LocalFunctions
from sendback.actions.mailboxes import MailboxServers
from sendback.actions.objects import ObjectStores
from sendback.actions.signing_key import SigningKey
from sendback.actions.sns_message import SnsSigner
from sendback.actions.topics import TopicPublishers
from sendback.clock import Clock
from sendback.config.settings import Settings
from sendback.net.connector import Connector
from sendback.service.rules.targets import Ports


class ActionBackends:
    """The implementations of the ports, with the clients and processes that they share."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        public_url: str,
        for_functions: Callable[[str], Awaitable[Mapping[str, str]]],
        signing_key: SigningKey,
    ) -> None:
        self._connector = Connector(allow_private=settings.allows_private_targets)
        self._local = LocalFunctions(for_functions, settings.function_environment)
        self.signer = SnsSigner(
            signing_key,
            public_url,
            settings.sns_signature_version,
        )
        clients = AwsClients(settings.region)
        self.ports = Ports(
            objects=ObjectStores(clients),
            topics=TopicPublishers(clients, self._connector, self.signer, clock),
            functions=FunctionCallers(clients, self._connector, self._local),
            mailboxes=MailboxServers(settings.hostname),
        )

    async def restart_functions(self) -> None:
        """End the functions' processes: each function is loaded again for its next event."""
        await self._local.close()

    async def close(self) -> None:
        """End the functions' processes and close the connections."""
        await self._local.close()
        await self._connector.close()
