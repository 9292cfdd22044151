"""Files on the web: http(s), from servers that nobody vouches for.

Where a name leads is checked, and then that very address is connected to, so that the name can't lead elsewhere the
second time it is asked. For the same reason no proxy of the environment is used: it would look the name up itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import cast
from urllib.parse import unquote

import httpx

from splice.errors import RequestError, TransferError
from splice.settings import PREFIX, Settings
from splice.storage.source import MissingFile, RemoteFile, RemoteIdentity, Stream, suffix_of
from splice.storage.urls import WebPlace, parse_url

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
MISSING = (404, 410)
FORBIDDEN = (401, 403)
TRANSIENT = (408, 425, 429)
"""Besides all from 500 on."""

_NAT64 = IPv6Network("64:ff9b::/96")


class WebSource:
    """A file on a web server.

    Asked by GET alone: many servers don't answer HEAD, or refuse it where a presigned url allows GET.
    """

    def __init__(self, place: WebPlace, settings: Settings) -> None:
        self._url = place.url
        self._settings = settings
        self.name = str(place)
        self.suffix = suffix_of(unquote(place.url.path))

    def locate(self) -> RemoteFile:
        with self._open({"Range": "bytes=0-0"}) as response:
            version, size_bytes = _version_of(response), self._size_of(response)
        # A query is no part of what a file is, unless seconds of a clock are all that tells files apart.
        key = str(self._url) if version.startswith("modified:") else self.name
        is_resumable = bool(version) and not version.startswith("etag:W/")
        return RemoteFile(key, RemoteIdentity(size_bytes, version), is_resumable=is_resumable)

    @contextmanager
    def read(self, file: RemoteFile, start: int) -> Iterator[Stream]:
        condition = {"Range": f"bytes={start}-", "If-Range": file.identity.version.partition(":")[2]}
        with self._open(condition if start else {}) as response:
            begins = _first_byte(response)
            if begins is None or begins not in (0, start):
                raise TransferError(f"{self.name}: asked for all from byte {start} on, got other bytes; try again")
            sizes = {self._size_of(response), file.identity.size_bytes} - {0}
            if _version_of(response) != file.identity.version or len(sizes) > 1:
                raise TransferError(f"{self.name}: changed while it was fetched; the next attempt fetches it anew")
            yield Stream(begins, response.iter_raw())

    @contextmanager
    def _open(self, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer; without its range where the server can't satisfy that."""
        with ExitStack() as stack:
            response = stack.enter_context(self._follow(headers))
            if response.status_code == 416 and headers:
                response = stack.enter_context(self._follow({}))
            self._require_success(response)
            yield response

    @contextmanager
    def _follow(self, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer at the end of all redirects, with its body still to come."""
        url = self._url
        # A connection that is kept would be used again for another name at the same address, whose certificate
        # nobody has seen.
        limits = httpx.Limits(max_keepalive_connections=0)
        with self._network_errors(), httpx.HTTPTransport(limits=limits) as transport:
            for _ in range(MAX_REDIRECTS + 1):
                with closing(self._send(transport, url, headers)) as response:
                    if response.status_code not in REDIRECTS:
                        yield response
                        return
                    url = self._next_url(url, response)
        raise RequestError(f"{self.name}: redirected more than {MAX_REDIRECTS} times; give the url that it ends at")

    def _send(self, transport: httpx.HTTPTransport, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        """Through the transport alone: httpx's client logs whole urls, and with their queries the secrets in them."""
        name = url.raw_host.decode("ascii")
        timeout = httpx.Timeout(self._settings.read_timeout_seconds, connect=self._settings.connect_timeout_seconds)
        own = {"Host": url.netloc.decode("ascii"), "User-Agent": "join-clips", "Accept-Encoding": "identity"}
        failure: httpx.TransportError | None = None
        for address in self._addresses(name, url.port):
            request = httpx.Request(
                "GET",
                url.copy_with(host=address),
                headers=own | headers,
                # The certificate must be the name's, not the address's.
                extensions={"timeout": timeout.as_dict(), "sni_hostname": name},
            )
            try:
                return transport.handle_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError("its name has no address")

    def _addresses(self, name: str, port: int | None) -> list[str]:
        """Every address that a name stands for. Raises RequestError: it has none, or one that is not public."""
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise TransferError(f"{self.name}: {name} can't be looked up now ({error.strerror})") from error
            raise RequestError(f"{self.name}: there is no host {name}; check the url") from error
        except UnicodeError as error:
            raise RequestError(f"{self.name}: {name} is no name of a host; check the url") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._settings.allow_private_addresses and not is_public(ip_address(address)):
                raise RequestError(
                    f"{self.name}: {name} leads to {address}, which is no public address; take a public url, or let "
                    f"clips come from your own network with {PREFIX}ALLOW_PRIVATE_ADDRESSES=true"
                )
        return addresses

    def _next_url(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        """Where a redirect leads. Raises RequestError: to another scheme, http to https aside, or to user info."""
        location = response.headers.get("location", "")
        try:
            target = url.join(location)
        except httpx.InvalidURL as error:
            raise RequestError(f"{self.name}: redirected to what is no url; give the one that it ends at") from error
        if target.scheme != url.scheme and (url.scheme, target.scheme) != ("http", "https"):
            raise RequestError(
                f"{self.name}: redirected from {url.scheme}:// to {target.scheme}://; "
                f"allowed is the same scheme, or https; give the url that it ends at if you trust it"
            )
        # Refuses user info.
        return cast("WebPlace", parse_url(str(target))).url

    def _require_success(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in MISSING:
            raise MissingFile(f"{self.name}: no such file ({status}); check the url")
        if status in FORBIDDEN:
            raise RequestError(
                f"{self.name}: the server refuses it ({status}); a presigned url may have expired: get a new one"
            )
        if status in TRANSIENT or status >= 500:
            raise TransferError(f"{self.name}: the server can't serve it now ({status}); try again later")
        if status not in (200, 206):
            raise RequestError(f"{self.name}: the server answers {status}, needed is 200; check the url")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise RequestError(f"{self.name}: is sent compressed ({encoding}) though asked not to; take another server")

    def _size_of(self, response: httpx.Response) -> int:
        """Bytes of the whole file; 0 where the server does not say.

        Raises RequestError where not even the end of what is sent can be told from a cut connection.
        """
        if response.status_code == 206:
            total = response.headers.get("content-range", "").rpartition("/")[2]
            return int(total) if total.isdecimal() else 0
        if "content-length" in response.headers:
            return int(response.headers["content-length"])
        if response.headers.get("transfer-encoding", "").lower() != "chunked":
            raise RequestError(
                f"{self.name}: the server does not say how long it is, so that a part could be taken for the whole; "
                f"fetch it, check it, and give its path"
            )
        return 0

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise RequestError(
                    f"{self.name}: the server's certificate can't be trusted ({error}); check the url, "
                    f"or name your own authority's file in SSL_CERT_FILE"
                ) from error
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise TransferError(
                f"{self.name}: the connection failed or broke off ({reason}); the next attempt goes on there"
            ) from error


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody may know the address: not private, loopback, link-local, multicast, reserved or the like.

    IPv6 addresses that stand for one of IPv4 are judged by that.
    """
    if isinstance(address, IPv6Address):
        nat64 = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        if embedded := address.ipv4_mapped or address.sixtofour or nat64:
            return is_public(embedded)
        if address.is_site_local or address.teredo:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _version_of(response: httpx.Response) -> str:
    for name, header in (("etag", "etag"), ("modified", "last-modified")):
        if value := response.headers.get(header):
            return f"{name}:{value}"
    return ""


def _first_byte(response: httpx.Response) -> int | None:
    """Where in the file begins what is sent; None where a part is sent without saying which."""
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(match[1]) if match else None
