"""`make compat COMPAT=FOLDER`: the public compatibility test of gpt-oss against a server of the tiny checkpoint.

`python tests/compatibility/run.py FOLDER [TRIES]`: its folder with its npm packages, and how often each case is asked.
Both APIs, streamed and not. Every task must succeed in every try with valid answers, else the exit status is 1.

Source: the folder `compatibility-test` of the repository openai/gpt-oss.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vllm_gptoss.demo.server import Server, reserved_port, serve_command
from vllm_gptoss.tiny import write_tiny

MODEL = "openai/gpt-oss-20b"
APIS = ("responses", "chat")
OPTIONS = ("--max-model-len=4096", "--max-num-seqs=16", "--kv-cache-memory-bytes=128M")
START_SECONDS = 600


def main(given: str, tries: str = "5") -> int:
    with tempfile.TemporaryDirectory(prefix="vllm-gptoss-compat-") as folder:
        test, checkpoint = Path(folder) / "test", Path(folder) / "tiny"
        # The test reads who is tested from a file of its own, and writes its results beside it.
        shutil.copytree(given, test, symlinks=True)
        write_tiny(checkpoint)
        environment = dict(os.environ)
        with (
            reserved_port() as port,
            Server(serve_command(checkpoint, port, MODEL, *OPTIONS), port, Path(folder) / "log", environment) as server,
        ):
            server.wait_healthy(START_SECONDS)
            provider = {"apiBaseUrl": f"{server.url}/v1", "apiKey": "none", "apiType": APIS, "modelName": MODEL}
            provider["providerDetails"] = {}
            (test / "providers.ts").write_text(f"export const PROVIDERS = {{ ours: {json.dumps(provider)} }};\n")
            failures = [failure for streamed in (False, True) for failure in _run(test, int(tries), streamed)]
            server.check_alive()
    print("\n".join(failures) or "Every task succeeded in every try.")
    return 1 if failures else 0


def _run(test: Path, tries: int, streamed: bool) -> list[str]:
    """What failed."""
    for old in test.glob("*_ours_*"):
        old.unlink()
    command = ["npx", "tsx", "index.ts", "--provider", "ours", "--tries", str(tries), *["--streaming"] * streamed]
    subprocess.run(command, cwd=test, check=True)
    (rollout,) = test.glob("rollout_ours_*.jsonl")
    runs = [json.loads(line) for line in rollout.read_text().splitlines()]
    cases = len(list(filter(None, (test / "cases.jsonl").read_text().splitlines())))
    kind = "streamed" if streamed else "not streamed"
    # An exception leaves one record, for both APIs, and no result.
    failed = [run for run in runs if not (run.get("success") and run["result"]["validResponse"])]
    failures = [f"{kind}: case {run['test_case']}: {run.get('error') or json.dumps(run['result'])}" for run in failed]
    if not failed and len(runs) != cases * tries * len(APIS):
        failures.append(f"{kind}: {len(runs)} runs of {cases} cases, {tries} tries and {len(APIS)} APIs")
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
