"""A client of the inspection API that checks each answer against the API's own document."""

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    octets: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.octets)

    @property
    def error(self) -> str:
        return self.json["error"]["code"]


class Api:
    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.headers = headers or {}
        self._document: Any = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """`body` is JSON, or octets. The answer is valid by the document."""
        answer = self.request(method, path, body, headers=headers, **query)
        self._check(method, path, answer)
        return answer

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        octets = body
        if body is not None and not isinstance(body, bytes):
            octets = json.dumps(body).encode()
        fields = {**self.headers, **(headers or {})}
        if octets is not None:
            fields = {"Content-Type": "application/json", **fields}
        url = f"{self.url}{path}{'?' + urlencode(query) if query else ''}"
        request = urllib.request.Request(url, octets, fields, method=method)
        try:
            with urllib.request.urlopen(request, timeout=70) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def get(self, path: str, **query: str) -> Any:
        answer = self.call("GET", path, **query)
        assert answer.status == 200, answer.octets
        return answer.json

    def inject(self, **members: Any) -> Answer:
        given = {"from": "ann@sender.example", "to": ["bob@example.com"], **members}
        if not {"raw", "raw_base64", "subject"} & given.keys():
            given["subject"] = "Hello"
        return self.call("POST", "/_sendback/messages", given)

    def receive(self, **members: Any) -> str:
        answer = self.inject(**members)
        assert answer.status == 201, answer.octets
        return str(answer.json["message_id"])

    def _check(self, method: str, path: str, answer: Answer) -> None:
        if self._document is None:
            self._document = self.request("GET", "/_sendback/openapi.json").json
        operation = next(
            (
                operations.get(method.lower())
                for template, operations in self._document["paths"].items()
                if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
            ),
            None,
        )
        if operation is None:
            assert answer.status in {404, 405}
            schema: Any = {"$ref": "#/components/schemas/Error"}
        else:
            response = operation["responses"][str(answer.status)]
            content = response.get("content")
            if content is None:
                assert answer.octets == b""
                return
            (media_type,) = content
            assert answer.headers["content-type"].partition(";")[0] == media_type
            if media_type != "application/json":
                return
            schema = content[media_type]["schema"]
        jsonschema.validate(answer.json, {**schema, "components": self._document["components"]})


def segment(text: str) -> str:
    return quote(text, safe="")
