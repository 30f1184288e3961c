"""A browser without JavaScript, for tests of the console: pages, forms, cookies."""

import http.client
import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlencode, urlsplit

_TOKEN = re.compile(r'name="csrf" (?:value|content)="([0-9a-f]+)"')


@dataclass
class ShownPage:
    """A response: its status, header fields, HTML, and the visible text on one line."""

    status: int
    headers: dict[str, str]
    html: str
    path: str
    text: str = field(init=False)

    def __post_init__(self) -> None:
        reader = _Text()
        reader.feed(self.html)
        self.text = " ".join("".join(reader.pieces).split())

    def form(self, action: str) -> dict[str, str]:
        """The fields of the form that posts to `action`, with the values that are shown."""
        reader = _Forms()
        reader.feed(self.html)
        return reader.forms[action]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(f"{data} ")


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._fields: dict[str, str] = {}
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = self.forms.setdefault(given.get("action", ""), {})
        elif tag == "input" and given.get("name"):
            is_box = given.get("type") in {"checkbox", "radio"}
            if not is_box or "checked" in given:
                self._fields[given["name"]] = given.get("value", "")
        elif tag == "select":
            self._select = given.get("name", "")
        elif tag == "option" and self._select:
            if "selected" in given or self._select not in self._fields:
                self._fields[self._select] = given.get("value", "")
        elif tag == "textarea":
            self._area = given.get("name", "")
            self._fields[self._area] = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self._fields[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":  # whose first line end is none of its text
            self._fields[self._area] = self._fields[self._area].removeprefix("\n")
            self._area = ""
        elif tag == "select":
            self._select = ""


class ConsoleClient:
    """Sends requests as a browser does; follows redirects; keeps cookies."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the URL of the server, without a path."""
        self._server = urlsplit(endpoint).netloc
        self.cookies: dict[str, str] = {}
        self.token = ""

    def get(self, path: str, **headers: str) -> ShownPage:
        """The page at a path such as `/console/mail`."""
        return self._follow("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> ShownPage:
        """The page after a form was sent, with the token of the last page."""
        body = urlencode({"csrf": self.token, **(fields or {})})
        return self._follow("POST", path, body, headers)

    def raw(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> ShownPage:
        """One response, without following it; only these header fields and the cookies are sent."""
        sent = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        sent = {**({} if not self.cookies else sent), **(headers or {})}
        connection = http.client.HTTPConnection(self._server, timeout=30)
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        html = response.read().decode("utf-8", "replace")
        for cookie in response.headers.get_all("set-cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        connection.close()
        if (found := _TOKEN.search(html)) is not None:
            self.token = unescape(found[1])
        fields = {name.lower(): value for name, value in response.headers.items()}
        return ShownPage(response.status, fields, html, path)

    def _follow(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> ShownPage:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
            sent.setdefault("Sec-Fetch-Site", "same-origin")
        page = self.raw(method, path, body, sent)
        for _ in range(5):
            if page.status not in {302, 303} or "location" not in page.headers:
                return page
            page = self.raw("GET", page.headers["location"])
        raise AssertionError(f"{path} redirects for ever")
