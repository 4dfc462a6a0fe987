"""`make compat COMPAT=FOLDER`: the public compatibility test of gpt-oss against a server of the tiny checkpoint.

`python tests/compatibility/run.py FOLDER [TRIES]`: its folder with its npm packages, and how often each case is asked.
Both APIs, and Chat Completions streamed too: of Responses, its program reads whole answers alone. Every task must
succeed in every try with valid answers, else the exit status is 1.

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
RUNS = (("responses", "chat"), False), (("chat",), True)
"""APIs, and whether they are streamed."""
OPTIONS = (
    *("--max-model-len=4096", "--max-num-seqs=16", "--kv-cache-memory-bytes=128M"),
    # The test names no temperature. At 1 the tiny model, two layers, begins one answer in thirty with another word.
    '--override-generation-config={"temperature": 0.3}',
)
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
            failures = [failure for run in RUNS for failure in _run(test, server.url, int(tries), *run)]
            server.check_alive()
    print("\n".join(failures) or "Every task succeeded in every try.")
    return 1 if failures else 0


def _run(test: Path, url: str, tries: int, apis: tuple[str, ...], streamed: bool) -> list[str]:
    """What failed."""
    provider = {"apiBaseUrl": f"{url}/v1", "apiKey": "none", "apiType": apis, "modelName": MODEL, "providerDetails": {}}
    (test / "providers.ts").write_text(f"export const PROVIDERS = {{ ours: {json.dumps(provider)} }};\n")
    for old in test.glob("*_ours_*"):
        old.unlink()
    command = ["npx", "tsx", "index.ts", "--provider", "ours", "--tries", str(tries), *["--streaming"] * streamed]
    subprocess.run(command, cwd=test, check=True)
    (rollout,) = test.glob("rollout_ours_*.jsonl")
    runs = [json.loads(line) for line in rollout.read_text().splitlines()]
    cases = len(list(filter(None, (test / "cases.jsonl").read_text().splitlines())))
    kind = "streamed" if streamed else "not streamed"
    # An exception leaves one record for all APIs, and no result.
    failed = [run for run in runs if not (run.get("success") and run["result"]["validResponse"])]
    failures = [f"{kind}: case {run['test_case']}: {run.get('error') or json.dumps(run['result'])}" for run in failed]
    if not failed and len(runs) != cases * tries * len(apis):
        failures.append(f"{kind}: {len(runs)} runs of {cases} cases, {tries} tries and {len(apis)} APIs")
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
