"""The demo from the first file to the last process."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from openai import DefaultHttpxClient, OpenAI, OpenAIError

from vllm_gptoss.demo.chat import Chat
from vllm_gptoss.demo.conversation import hold, weather_and_time_in_tokyo, weather_in_paris
from vllm_gptoss.demo.responses import Responses
from vllm_gptoss.demo.server import Server, ServerError, reserved_port, serve_command
from vllm_gptoss.demo.transcript import Transcript
from vllm_gptoss.demo.turn import DemoError
from vllm_gptoss.tiny import write_tiny
from vllm_gptoss.tiny.dialogues import TOOLS

MODEL = "tiny-gpt-oss"
START_SECONDS = 300
SILENCE_SECONDS = 60
"""Until the first piece of a stream, and between any two."""
TOTAL_SECONDS = 480
"""Whatever hangs: after this the demo has failed."""

OPTIONS = (
    # A small cache and nothing compiled: starting takes longer than all that is said.
    "--max-model-len=2048",
    "--max-num-seqs=4",
    "--kv-cache-memory-bytes=64M",
    "--enforce-eager",
)


def run() -> int:
    """Hold the demo, print it, and return the exit code: 0 only when all of it went as learnt."""
    transcript = Transcript()
    handle, name = tempfile.mkstemp(prefix="vllm-gptoss-demo-", suffix=".log")
    os.close(handle)
    log = Path(name)
    try:
        with _bounded(), tempfile.TemporaryDirectory(prefix="vllm-gptoss-demo-") as folder:
            _demo(Path(folder), log, transcript)
    except (DemoError, ServerError, OpenAIError) as error:
        transcript.failed(f"{error}\n  the server's log: {log}")
        return 1
    except BaseException:
        log.unlink()
        raise
    log.unlink()
    return 0


def _demo(folder: Path, log: Path, transcript: Transcript) -> None:
    start = time.monotonic()
    with transcript.stage(f"Write the tiny checkpoint to {folder}"):
        write_tiny(folder)
    with (
        reserved_port() as port,
        Server(serve_command(folder, port, MODEL, *OPTIONS), port, log, _env()) as server,
    ):
        with transcript.stage(f"Start vllm serve on {server.url}"):
            server.wait_healthy(START_SECONDS)
        _talk(server, transcript)
        with transcript.stage("Stop the server"):
            server.stop()
    print(f"Done in {time.monotonic() - start:.1f} s; no process remains")


def _talk(server: Server, transcript: Transcript) -> None:
    # No proxy of the environment between this and the loopback interface, no second try of what failed.
    with OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        timeout=SILENCE_SECONDS,
        max_retries=0,
        http_client=DefaultHttpxClient(trust_env=False),
    ) as client:
        for api, learnt in ((Chat, weather_in_paris), (Responses, weather_and_time_in_tokyo)):
            with transcript.stage(api.title):
                try:
                    hold(api(client, MODEL, list(TOOLS), transcript.show), learnt, transcript.show)
                except OpenAIError:
                    server.check_alive()
                    raise


def _env() -> dict[str, str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # The engine is forked off the API server and need not import everything anew. Where a GPU is in use
    # by then, vLLM goes back to its default, spawn.
    env.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    # The key would be asked of the demo's own client.
    env.pop("VLLM_API_KEY", None)
    return env


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP unwind as Ctrl-C does; it takes TOTAL_SECONDS at the longest."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise DemoError(f"not done after {TOTAL_SECONDS} s")

    handlers = {
        signal.SIGTERM: signal.default_int_handler,
        signal.SIGHUP: signal.default_int_handler,
        signal.SIGALRM: too_long,
    }
    # What the caller has set to be ignored stays ignored, as `nohup` does with SIGHUP.
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    signal.alarm(TOTAL_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
