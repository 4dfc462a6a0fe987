"""A real server on the loopback interface, with what servers do to those who fetch from them."""

import contextlib
import gzip
import http.server
import json
import threading
import time
import zlib
from collections.abc import Iterator

LOOPBACK = ("127.0.0.0/8",)

ASKED: list[tuple[str, dict]] = []
"""Paths and headers of all requests, in their order."""

A, B = "https://a.test/1", "http://b.test/2"
ANSWERS = {
    "good": {"results": [{"title": "A", "url": A, "summary": "a\nb"}, {"url": B, "text": "t"}]},
    "odd": {
        "results": [
            None,
            "x",
            {"title": 3, "url": A, "summary": None, "highlights": ["h", "i"]},
            {"url": "javascript:x"},
            {"url": "http://[x"},
            {"title": "no url"},
            {"url": B, "title": None, "summary": [], "text": ""},
        ]
    },
    "none": {"results": []},
    "wrong": {"error": "nope"},
    "list": [1, 2],
    "you": {
        "results": {"web": [{"url": A, "title": "A", "description": "d"}, {"url": B, "snippets": ["s"]}], "news": 3}
    },
}


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by path, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        ASKED.append((self.path, dict(self.headers)))
        getattr(self, f"on_{self.path.partition('?')[0].strip('/').partition('/')[0]}", self.on_missing)()

    def do_POST(self):
        self.do_GET()

    def reply(self, body=b"", kind="text/html", status=200, **headers):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def on_missing(self):
        self.reply(b"no", status=404)

    def on_page(self):
        self.reply(b"<title>T</title><p>hello <a href=/other>other</a>")

    def on_gzip(self):
        self.reply(gzip.compress(b"<p>packed"), Content_Encoding="gzip")

    def on_deflate(self):
        self.reply(zlib.compress(b"<p>packed"), Content_Encoding="deflate")

    def on_brotli(self):
        self.reply(b"xx", Content_Encoding="br")

    def on_torn(self):
        self.reply(b"not gzip", Content_Encoding="gzip")

    def on_bomb(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        zeros = bytes(1 << 20).replace(b"\0", b"a")
        body = b"".join(packer.compress(zeros) for _ in range(300)) + packer.flush()
        self.reply(body, Content_Encoding="gzip")

    def on_latin(self):
        self.reply("<p>café".encode("latin-1"), "text/html; charset=ISO-8859-1")

    def on_meta(self):
        self.reply("<meta charset=windows-1252><p>“café”".encode("cp1252"))

    def on_strange(self):
        self.reply("<p>café".encode(), "text/html; charset=punycode")

    def on_utf16(self):
        self.reply("<p>café".encode("utf-16"))

    def on_json(self):
        self.reply(b'{"a": "<b>"}', "application/problem+json")

    def on_markdown(self):
        self.reply(b"# M\n[a](/b)", "text/markdown; charset=utf-8")

    def on_untyped(self):
        self.reply(b"plain words", None)

    def on_pdf(self):
        self.reply(b"%PDF", "application/pdf")

    def on_binary(self):
        self.reply(bytes(range(256)), "text/plain")

    def on_error(self):
        self.reply(b"secret details", status=503)

    def on_loop(self):
        self.reply(status=302, Location="/loop")

    def on_hops(self):
        left = int(self.path.rpartition("/")[2])
        self.reply(status=301, Location=f"/hops/{left - 1}" if left else "/page")

    def on_to(self):
        self.reply(status=307, Location=self.path.partition("?")[2])

    def on_nowhere(self):
        self.reply(status=302)

    def on_huge(self):
        self.reply(b"<p>word " * 1_000_000)

    def on_endless(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"all work and no play\n" * 5000)

    def on_slow(self):
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)

    def on_drip(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)

    def on_garbage(self):
        self.wfile.write(b"\x00\x01\x02 not http at all\r\n\r\n")
        self.close_connection = True

    def on_exa(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(("body", asked))
        self.reply(json.dumps(ANSWERS[asked["query"]]).encode(), "application/json")

    def on_you(self):
        self.reply(json.dumps(ANSWERS["you"]).encode(), "application/json")

    def on_away(self):
        self.reply(status=302, Location=f"{self.headers['Host']}/exa")

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of the server."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """Clients go away on purpose here."""

    with Server(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
