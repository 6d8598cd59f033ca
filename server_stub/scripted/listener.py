"""The HTTP of the scripted server: connections, routes, and one event a chunk."""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

from .bodies import Generation, chunks, completion
from .checks import check_form, check_model
from .prompt import cut, token_id
from .refusal import Refusal, invalid_field

if TYPE_CHECKING:
    from .server import ScriptedServer

__all__ = ["Listener"]

KEEP_ALIVE = 5.0  # seconds until an idle connection is closed, as vLLM does
MAX_BODY = 64 * 1024 * 1024


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One daemon thread for each connection; closing cuts the connections and waits for the threads."""

    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], scripted: ScriptedServer) -> None:
        self.scripted = scripted
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = False
        super().__init__(address, Handler)

    def serve(self) -> None:
        """Serve until `stop`; nothing is polled, a stop wakes the wait for the next connection by being one."""
        while not self._stopping:
            self.handle_request()

    def stop(self, host: str) -> None:
        """Make `serve` return."""
        self._stopping = True
        with contextlib.suppress(OSError):
            socket.create_connection((host, self.server_address[1]), 0.1).close()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        return not self._stopping

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._open.pop(request, None)

    def server_close(self) -> None:
        super().server_close()
        for connection, thread in list(self._open.items()):
            with contextlib.suppress(OSError):  # its thread was faster
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(1.0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no error
            super().handle_error(request, client_address)


class _ClientLeftError(ConnectionError):
    """The client closed its end before the answer was complete."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        self.connection.settimeout(KEEP_ALIVE)
        super().handle_one_request()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Stay quiet."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer bytes that are no HTTP request as uvicorn does."""
        self.close_connection = True
        self._send(code, b"Invalid HTTP request received.", "text/plain; charset=utf-8")

    def _dispatch(self) -> None:
        self.connection.settimeout(None)
        path = urlsplit(self.path).path
        try:
            raw = self._read_body()
            if path.startswith("/v1") and not self._stub.admits(self.headers.get("Authorization")):
                self._send_json(401, {"error": "Unauthorized"})
            elif path not in self._ROUTES:
                self._send_json(404, {"detail": "Not Found"})
            elif self.command != self._ROUTES[path][0]:
                self._send_json(405, {"detail": "Method Not Allowed"}, allow=self._ROUTES[path][0])
            else:
                self._ROUTES[path][1](self, raw)
        except Refusal as refusal:
            self._send_json(refusal.status, refusal.body)
            self.close_connection = self.close_connection or refusal.status == 500  # vLLM does, and does not say so
        except OSError:
            self.close_connection = True  # the client went away
        except Exception as error:
            self._send_json(500, Refusal(str(error), status=500).body)
            raise  # printed, and the connection closed, as after every error that vLLM did not expect

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _dispatch  # noqa: N815

    @property
    def _stub(self) -> ScriptedServer:
        return cast("Listener", self.server).scripted

    def _empty(self, _: bytes) -> None:
        self._send(200, b"", None)

    def _version(self, _: bytes) -> None:
        self._send_json(200, {"version": "0.32.0"})

    def _models(self, _: bytes) -> None:
        cards = [_model_card(name, self._stub.max_model_len) for name in self._stub.models]
        self._send_json(200, {"object": "list", "data": cards})

    def _metrics(self, _: bytes) -> None:
        label = f'{{engine="0",model_name="{self._stub.models[0]}"}}'
        text = (
            "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
            f"vllm:num_requests_running{label} {float(self._stub.running)}\n"
            "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n"
            f"vllm:num_requests_waiting{label} 0.0\n"
        )
        self._send(200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")

    def _tokenize(self, raw: bytes) -> None:
        request = self._json(raw)
        check_model(request, self._stub.models)
        if isinstance(prompt := request.get("prompt"), str):
            tokens = cut(prompt)
        elif "messages" in request:
            check_form(request)
            tokens = self._stub.prompt(request).tokens
        else:
            raise invalid_field("body.prompt", "missing", "Field required", request)
        strings = tokens if request.get("return_token_strs") else None
        ids = [token_id(it) for it in tokens]
        body = {"count": len(ids), "max_model_len": self._stub.max_model_len, "tokens": ids, "token_strs": strings}
        self._send_json(200, body)

    def _chat(self, raw: bytes) -> None:
        request = self._json(raw)
        if failure := self._stub.next_failure():
            status, message, headers = failure
            self._send_json(status, Refusal(message, status=status, kind=_phrase(status)).body, **headers)
            return
        name = self.headers.get("X-Request-Id") or request.get("request_id") or ""
        generation = self._stub.generation(request, name=str(name))
        with self._stub.counted(), _paced(self.connection) as wait:
            if request.get("stream"):
                self._stream(generation, wait)
                return
            wait(self._stub.pace * len(generation.pieces))
        self._send_json(200, completion(generation))

    def _stream(self, generation: Generation, wait: Callable[[float], None]) -> None:
        self.wfile.write(self._head(200, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"}))
        for number, chunk in enumerate(chunks(generation)):
            wait(self._stub.pace if number else 0.0)
            self._send_event(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))
        self._send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, data: str) -> None:
        event = b"data: " + _encoded(data) + b"\n\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        return self.rfile.read(self._length(self.headers.get("Content-Length") or "0", 10))

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := self._length(self.rfile.readline(32).split(b";")[0].strip().decode("latin-1"), 16, len(body)):
            body += self.rfile.read(size)
            self.rfile.readline(3)
        while self.rfile.readline(65536).strip():  # trailers
            pass
        return bytes(body)

    def _length(self, digits: str, base: int, before: int = 0) -> int:
        """Read a length; one that cannot be read, or is too large, ends the connection: what follows is unknown."""
        try:
            length = int(digits, base)
        except ValueError:
            length = -1
        if length < 0 or length + before > MAX_BODY:
            self.close_connection = True
            status = 400 if length < 0 else 413
            raise Refusal(f"The body is larger than {MAX_BODY} bytes, or its length cannot be read.", status=status)
        return length

    def _json(self, raw: bytes) -> dict[str, Any]:
        """Read the body as a JSON object; it is recorded, whatever it is."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            body = json.loads(raw)
        except ValueError as error:  # broken UTF-8 too
            self._stub.remember(self.path, headers, None)
            at, why = (error.pos, error.msg) if isinstance(error, json.JSONDecodeError) else (0, "Invalid UTF-8")
            raise invalid_field(f"body.{at}", "json_invalid", "JSON decode error", {}, error=why) from error
        self._stub.remember(self.path, headers, body if isinstance(body, dict) else None)
        if headers.get("content-type", "").split(";")[0].lower() != "application/json":
            text = "Unsupported Media Type: Only 'application/json' is allowed"
            raise Refusal(f"1 validation error:\n  {text}", kind="Bad Request")
        if not isinstance(body, dict):
            what = "Input should be a valid dictionary or object to extract fields from"
            raise invalid_field("body", "model_attributes_type", what, body)
        return body

    def _send_json(self, status: int, body: object, **headers: str) -> None:
        content = _encoded(json.dumps(body, ensure_ascii=False, separators=(",", ":")))
        self._send(status, content, "application/json", headers)

    def _send(
        self, status: int, content: bytes, content_type: str | None, headers: dict[str, str] | None = None
    ) -> None:
        lines = {"content-length": str(len(content)), **(headers or {})}
        shown = b"" if self.command == "HEAD" else content
        self.wfile.write(self._head(status, content_type, lines) + shown)

    def _head(self, status: int, content_type: str | None, headers: dict[str, str]) -> bytes:
        lines = {"date": self.date_time_string(), "server": "scripted", **headers}
        if content_type:
            lines["content-type"] = content_type
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {status} {_phrase(status)}\r\n{text}\r\n".encode("latin-1")

    _ROUTES: ClassVar[dict[str, tuple[str, Callable[[Handler, bytes], None]]]] = {
        "/health": ("GET", _empty),
        "/ping": ("GET", _empty),
        "/version": ("GET", _version),
        "/metrics": ("GET", _metrics),
        "/v1/models": ("GET", _models),
        "/tokenize": ("POST", _tokenize),
        "/v1/chat/completions": ("POST", _chat),
    }


@contextmanager
def _paced(connection: socket.socket) -> Iterator[Callable[[float], None]]:
    """Give a function that lets time pass as a model does, and raises when the client has closed the connection."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)

        def wait(seconds: float) -> None:
            until = time.monotonic() + seconds
            if selector.select(seconds):
                if not connection.recv(1, socket.MSG_PEEK):
                    raise _ClientLeftError
                time.sleep(max(0.0, until - time.monotonic()))  # it has sent its next request early

        yield wait


def _model_card(name: str, max_model_len: int) -> dict[str, Any]:
    created = int(time.time())
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # a lone surrogate in the question must not break the answer
