"""vLLM's demo tool server with the tools of this package; they are imported with the first server that has them."""

from collections.abc import Callable


def init_and_validate(stock: Callable) -> Callable:
    def init_and_validate(self):
        from vllm_gptoss.tools.serving import start

        return start(self)

    return init_and_validate


def new_session(stock: Callable) -> Callable:
    def new_session(self, tool_name: str, *_):
        from vllm_gptoss.tools.serving import session

        return session(self, tool_name)

    return new_session
