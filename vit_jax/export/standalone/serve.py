"""Serves the model in this folder: python serve.py 8000

Send an image: curl --data-binary @photo.jpg http://localhost:8000
"""

import http.server
import json
import pathlib
import sys

from runtime import Model

LARGEST = 2**25  # bytes of a request

model = Model(pathlib.Path(__file__).parent)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 <= size <= LARGEST:
                raise ValueError(f"send at most {LARGEST} bytes")
            code, answer = 200, {"classes": model.classify(model.read(self.rfile.read(size)))}
        except ValueError as error:
            code, answer = 400, {"error": str(error)}
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
