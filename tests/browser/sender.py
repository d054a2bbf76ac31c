"""Keeps messages in memory, for a test to read."""

# (recipient, body), oldest first.
SENT: list[tuple[str, str]] = []


class KeptSender:
    """A sender that reaches nobody."""

    def send(self, *, key: str, recipient: str, template: str, body: str) -> None:
        SENT.append((recipient, body))
