"""One signed message to an address that a node gave: how it is checked, signed and posted.

Signed as Standard Webhooks say (https://www.standardwebhooks.com). Their Python library wants an
HTTP client and three more packages for what is ten lines here. Addresses come from outside, so
nothing is followed and nobody inside is reached: a name is resolved once, every address it has is
looked at, and the connection goes to an address that was looked at, so a name that changes its
mind between the look and the call gains nothing.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import secrets
import socket
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from config.errors import DomainError

TIMEOUT_SECONDS = 5
MOST_ADDRESSES = 3  # of one name, tried in turn
SECRET_PREFIX = "whsec_"  # noqa: S105 (the public start of a secret)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last four bytes


class UnfitUrl(DomainError):
    """An address that no callback is sent to."""

    code = "unfit_notify_url"
    status = 400
    title = "The callback address is not allowed"


class NotDelivered(Exception):
    """The message did not arrive, or nobody said so; `final` when asking again is of no use,
    `silent` when nobody answered at all."""

    def __init__(self, detail: str, *, final: bool = False, silent: bool = False) -> None:
        super().__init__(detail)
        self.final = final
        self.silent = silent


def check_url(url: str) -> SplitResult:
    """The parts of a fit address: https (plain http only with CALLBACK_ALLOW_PRIVATE), a host, no
    user or fragment, no address of the inside. Names are resolved when sending. Raises UnfitUrl.
    """
    schemes = ("https", "http") if settings.CALLBACK_ALLOW_PRIVATE else ("https",)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnfitUrl("The callback address is no URL.") from None
    if len(url) > 500 or not url.isascii() or not url.isprintable() or " " in url:
        raise UnfitUrl("A callback address has at most 500 plain ASCII characters.")
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise UnfitUrl(f"A callback address begins with {' or '.join(schemes)}:// and a host.")
    if "@" in parts.netloc or parts.fragment:
        raise UnfitUrl("A callback address carries no user, password or fragment.")
    try:
        literal = [str(ipaddress.ip_address(parts.hostname.partition("%")[0]))]
    except ValueError:
        literal = []  # a name
    if refused := refused_of(literal):
        raise UnfitUrl(f"Callbacks are not sent to {refused}.")
    return parts


def refused_of(addresses: Sequence[str]) -> str:
    """The first of these addresses that callbacks must not reach, or an empty text."""
    return next((text for text in addresses if not _may_reach(text)), "")


def _may_reach(text: str) -> bool:
    address = _meant(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return False  # never a node, and link-local is where machines keep their secrets
    if settings.CALLBACK_ALLOW_PRIVATE:
        return True
    local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_reserved and not local


def _meant(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address inside one of the IPv6 addresses that stand for it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def new_secret() -> str:
    """A signing secret as Standard Webhooks write it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(*, secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 HMAC-SHA256 over `id.timestamp.body`; timestamp in seconds."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise NotDelivered("The node's signing secret is damaged; make a new one.") from None
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def post(*, url: str, secret: str, message_id: str, timestamp: int, body: bytes) -> None:
    """Send a signed JSON body and wait for a 2xx, TIMEOUT_SECONDS at most after the name is
    resolved. Never call it inside a transaction. Raises NotDelivered."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Tokenpack",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(
            secret=secret, message_id=message_id, timestamp=timestamp, body=body
        ),
    }
    try:
        parts = check_url(url)  # the rules may have changed since the address was taken
    except UnfitUrl as refusal:
        raise NotDelivered(refusal.detail, final=True) from None
    connection = _connect(parts, resolve(parts))
    # A timeout of the socket starts anew with every byte; this one ends a server that drips.
    deadline = threading.Timer(TIMEOUT_SECONDS, _cut, [connection])
    deadline.start()
    try:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        connection.request("POST", _target(parts), body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotDelivered(f"No answer: {type(error).__name__}: {error}", silent=True) from None
    finally:
        deadline.cancel()
        connection.close()
    if 300 <= status < 400:
        raise NotDelivered(f"Answered {status}; redirects are not followed.")
    if not 200 <= status < 300:
        raise NotDelivered(f"Answered {status}.", final=status == http.HTTPStatus.GONE)


def resolve(parts: SplitResult) -> list[str]:
    """The addresses of the host, all of them allowed. Raises NotDelivered."""
    try:
        found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotDelivered(f"The host's name is not resolved: {error}", silent=True) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if refused := refused_of(addresses):
        raise NotDelivered(f"The host's name leads to {refused}, where callbacks are not sent.")
    return addresses


def _connect(parts: SplitResult, addresses: Sequence[str]) -> http.client.HTTPConnection:
    """A connection to one of the addresses; for https the certificate must fit the name."""
    host, port = parts.hostname or "", _port(parts)
    encrypted = parts.scheme == "https"
    kind = http.client.HTTPSConnection if encrypted else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT_SECONDS)
    connection.auto_open = 0  # else it would connect by name
    problem: Exception | None = None
    for address in addresses[:MOST_ADDRESSES]:
        try:
            sock = socket.create_connection((address, port), TIMEOUT_SECONDS)
            # A peer that hangs up at once may fail the wrapping already.
            connection.sock = _wrapped(sock, host) if encrypted else sock
        except OSError as error:
            problem = error
            continue
        return connection
    raise NotDelivered(f"Not reached: {problem}", silent=True)


def _wrapped(sock: socket.socket, host: str) -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(
        sock, server_hostname=host, do_handshake_on_connect=False
    )


def _cut(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        try:  # beneath TLS, which another thread is using
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
