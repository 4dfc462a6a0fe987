"""`make fuzz`: schemathesis against a server of the tiny checkpoint, by its OpenAPI document; no answer may be a 5xx.

`python tests/fuzz/run.py SCHEMATHESIS [EXAMPLES [SEED]]`: its program, random requests a route, and how to repeat them.
Its findings go to the screen; the server's log stays where the last line says, where there are any.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from vllm_gptoss.demo.server import Server, reserved_port, serve_command
from vllm_gptoss.tiny import write_tiny

MODEL = "tiny"
ROUTES = r"^/v1/(chat/completions|completions|responses)(/\{response_id\}(/cancel)?)?$"
OPTIONS = ("--max-model-len=2048", "--max-num-seqs=16", "--kv-cache-memory-bytes=64M")
START_SECONDS = 600


def main(program: str, examples: str = "100", seed: str | None = None) -> int:
    seed = seed or str(random.randrange(1 << 32))
    folder = Path(tempfile.mkdtemp(prefix="vllm-gptoss-fuzz-"))
    write_tiny(folder / MODEL)
    log = folder / "server.log"
    hooks = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(Path(__file__).parent)}
    with (
        reserved_port() as port,
        Server(
            serve_command(folder / MODEL, port, MODEL, *OPTIONS),
            port,
            log,
            {**os.environ, "VLLM_ENABLE_RESPONSES_API_STORE": "1"},
        ) as server,
    ):
        server.wait_healthy(START_SECONDS)
        code = subprocess.run(
            [
                *(program, "run", f"{server.url}/openapi.json", "--include-path-regex", ROUTES),
                *("--checks", "not_a_server_error,no_error_in_stream", "--continue-on-failure"),
                *("--max-examples", examples, "--seed", seed, "--no-shrink", "--generation-database", "none"),
                *("--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off"),
            ],
            cwd=folder,
            env=os.environ | hooks,
        ).returncode
        server.check_alive()
    print(f"{'Found nothing' if code == 0 else f'Failed; the log of the server: {log}'}; seed {seed}")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
