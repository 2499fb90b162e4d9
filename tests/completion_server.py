"""A server of OpenAI's completions over one checkpoint, by transformers alone: `python completion_server.py FOLDER`.

Prints its port. `--plain` leaves out token ids, as servers do that know OpenAI's protocol only. GET /asked tells how
often it was asked.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LOCK = Lock()


class Server(ThreadingHTTPServer):
    def __init__(self, folder: str, *, plain: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.plain, self.asked = plain, 0

    @torch.no_grad()
    def complete(self, wanted: dict[str, Any]) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(wanted["seed"])
        fed, cache = torch.tensor([wanted["prompt"]]), None
        ids: list[int] = []
        told: list[float] = []
        while len(ids) < wanted["max_tokens"] and not (ids and ids[-1] in wanted["stop_token_ids"]):
            out = self.model(fed, past_key_values=cache, use_cache=True)
            log_p, cache = out.logits[0, -1].log_softmax(-1), out.past_key_values
            warm = (log_p / (wanted["temperature"] or 1)).softmax(-1)
            token = int(torch.multinomial(warm, 1, generator=draw) if wanted["temperature"] else log_p.argmax())
            ids.append(token)
            told.append(float(log_p[token]))
            fed = torch.tensor([[token]])
        ended = ids[-1] in wanted["stop_token_ids"]
        choice = {"index": 0, "text": self.tokenizer.decode(ids, skip_special_tokens=True)}
        choice |= {"finish_reason": "stop" if ended else "length", "logprobs": None}
        if not self.plain:
            texts = [self.tokenizer.decode([token]) for token in ids]
            choice |= {"token_ids": ids, "logprobs": {"tokens": texts, "token_logprobs": told}}
        return {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": "baked", "choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        model = {"id": "baked", "object": "model", "created": 0, "owned_by": "tests"}
        self._send(self.server.asked if self.path == "/asked" else {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            self.server.asked += 1
            self._send(self.server.complete(wanted))

    def _send(self, found: Any) -> None:
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


if __name__ == "__main__":
    torch.set_num_threads(1)
    server = Server(sys.argv[1], plain="--plain" in sys.argv)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
