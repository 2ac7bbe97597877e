"""A stand-in for Kaggle on loopback: what the real client asks of it, and the faults it may have."""

import contextlib
import io
import json
import ssl
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

SIGNATURE = "signature-of-the-address"
KEY = "0123456789-the-key"
PAGE = "https://www.kaggle.com/competitions/digit-recognizer"


class KaggleServer(ThreadingHTTPServer):
    """Answers as a proxy for http://localhost, which the client calls where it is told LOCALHOST."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive = b""
        self.etag = '"1"'
        self.answers_html = False  # as a sign-in page does
        self.cuts = []  # bytes after which the next answers with the file break off
        self.faults = {}  # of a method: the status and what Kaggle says
        self.passing_faults = {}  # of a method: a list of such, or None, for its next requests
        self.file_status = 200
        self.tunnel = 407  # what a client gets that wants a tunnel: this status, or a server with this certificate
        self.put_status = 200  # None: the connection is closed without an answer
        self.answer = {"message": "Successfully submitted to Digit Recognizer", "ref": 101}
        self.looks_until_scored = 1
        self.score = {"status": "COMPLETE", "publicScore": "0.99571"}
        self.asked = []  # the last part of the path, the headers and the body of every request
        self.submissions = []
        self.on_submission = None  # called once one has arrived
        self.saved = {}  # of the answer to a kernel that is pushed
        self.statuses = ["QUEUED", "RUNNING", "RUNNING", "COMPLETE"]
        self.output = {"submission.csv": "a,b", "cv_report.json": {}}  # of the kernel
        self.files_on_a_page = 20  # of its list
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked_for(self, name: str) -> list:
        return [(headers, body) for asked, headers, body in self.asked if asked == name]


def packed(folder: Path, names=("train.csv", "test.csv", "sample_submission.csv")) -> bytes:
    """An archive of files in `folder`."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.write(folder / name, name)
    return archive.getvalue()


def forget_client():
    """The client looks at its surroundings when it is imported: each test has its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("kaggle", "kagglesdk")]:
        del sys.modules[name]


def refused(outcome, *words):
    """True if the outcome is one line on stderr that has these words, exit code 2, and no secret is told."""
    assert outcome.code == 2, outcome
    assert outcome.error.count("\n") == 1 and outcome.error.count(": error: ") == 1, outcome.error
    assert all(word in outcome.error for word in words), outcome.error
    assert not any(secret in outcome.out + outcome.error for secret in (KEY, SIGNATURE)), outcome
    return True


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def _asked(self) -> str:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = urlsplit(self.path).path.rpartition("/")[2]
        self.server.asked.append((name, dict(self.headers), body))
        self.body = body
        return name

    def do_CONNECT(self):
        is_status = isinstance(self.server.tunnel, int)
        self.send_response(self.server.tunnel if is_status else 200)
        self.end_headers()
        if is_status:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.tunnel)
        with contextlib.suppress(OSError):  # the client breaks off
            context.wrap_socket(self.connection, server_side=True)
        self.close_connection = True

    def do_POST(self):
        name = self._asked()
        if self.server.answers_html:
            self._send(b"<html>Sign in</html>", "text/html")
        elif fault := (self.server.passing_faults.get(name) or [self.server.faults.get(name)]).pop(0):
            status, message = fault
            self._json({"code": status, "message": message}, status)
        elif not hasattr(self, name):
            self._json({"code": 404, "message": "Not found"}, 404)
        else:
            getattr(self, name)(json.loads(self.body or b"{}"))

    def IntrospectToken(self, request):  # noqa: N802
        self._json({"active": True, "username": "somebody"})

    def DownloadDataFiles(self, request):  # noqa: N802
        self.send_response(302)
        self.send_header("Location", f"http://localhost/files/{request['competitionName']}.zip?sig={SIGNATURE}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def StartSubmissionUpload(self, request):  # noqa: N802
        self._json({"token": "blob", "createUrl": f"http://localhost/upload/blob?sig={SIGNATURE}"})

    def CreateSubmission(self, request):  # noqa: N802
        if self.server.answer.get("ref", 1):
            self.server.submissions.insert(0, {"looks": 0, "description": request["submissionDescription"]})
        if self.server.on_submission:
            self.server.on_submission()
        self._json(self.server.answer)

    def ListSubmissions(self, request):  # noqa: N802
        listed = [{"ref": 7, "status": "COMPLETE", "publicScore": "0.1", "date": "2020-01-01T00:00:00Z"}]
        for submission in self.server.submissions:
            submission["looks"] += 1
            scored = submission["looks"] > self.server.looks_until_scored
            facts = {
                "ref": self.server.answer.get("ref") or 55,
                "description": submission["description"],
                "fileName": "submission.csv",
                "date": "2026-08-01T00:00:00.1234567Z",
            }
            listed.insert(0, facts | (self.server.score if scored else {"status": "PENDING"}))
        self._json({"submissions": listed, "nextPageToken": ""})

    def SaveKernel(self, request):  # noqa: N802
        self.server.kernel = request
        self._json({"url": f"https://www.kaggle.com/code/{request['slug']}", "versionNumber": 1} | self.server.saved)

    def GetKernelSessionStatus(self, request):  # noqa: N802
        status = self.server.statuses.pop(0)
        self._json(status if isinstance(status, dict) else {"status": status})

    def ListKernelSessionOutput(self, request):  # noqa: N802
        names, first = [*self.server.output], int(request.get("pageToken") or 0)
        after = first + self.server.files_on_a_page
        files = [{"url": f"{self.server.proxy}/{name}", "fileName": name} for name in names[first:after]]
        self._json({"files": files, "log": "said", "nextPageToken": str(after) if after < len(names) else ""})

    def do_GET(self):
        name = self._asked()
        if name in self.server.output:
            value = self.server.output[name]
            self._json(value, 200 if value is not None else 404)
            return
        whole, wanted = self.server.archive, self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if self.server.file_status != 200:
            self._json({}, self.server.file_status)
            return
        if self.headers.get("If-Range", self.server.etag) != self.server.etag:
            start, wanted = 0, None
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", self.server.etag)
        self.send_header("Last-Modified", "Mon, 06 Jan 2020 00:00:00 GMT")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        stop = start + self.server.cuts.pop(0) if self.server.cuts else len(whole)
        self.wfile.write(whole[start:stop])

    def do_PUT(self):
        self._asked()
        if self.server.put_status is not None:
            self._json({}, self.server.put_status)

    def _json(self, value, status=200):
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body, kind, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
