"""Where bodies of requests are validated: what stands in place of pydantic's schemas of them.

Each process of vLLM imports this, whatever it serves; so what validates is imported with the first request. `mark` is
the attribute by which vLLM's methods are known to be replaced, which is where gpt-oss is served; for another model
vLLM alone validates.
"""

import functools
from collections.abc import Callable
from typing import Any

from pydantic_core.core_schema import no_info_wrap_validator_function


def checked_body(mark: str) -> Callable[[Callable], Callable]:
    """Of Completions and Chat Completions."""

    def checked(data: Any, validate: Callable[[Any], Any]) -> Any:
        if not _is_gpt_oss(mark):
            return validate(data)
        from vllm_gptoss.serving import bodies

        return bodies.checked(data, lambda data: bodies.explained(data, validate))

    return _schema(checked)


def responses_body(mark: str) -> Callable[[Callable], Callable]:
    def accepted(data: Any, validate: Callable[[Any], Any]) -> Any:
        if not _is_gpt_oss(mark):
            return validate(data)
        from vllm_gptoss.serving import bodies, requests

        explained = functools.partial(bodies.explained, validate=validate)
        return bodies.checked(data, lambda data: requests.accepted(data, explained))

    return _schema(accepted)


def _is_gpt_oss(mark: str) -> bool:
    from vllm.renderers.online_renderer import OnlineRenderer

    return hasattr(OnlineRenderer._make_request_with_harmony, mark)


def _schema(validator: Callable) -> Callable[[Callable], Callable]:
    @functools.wraps(validator)
    def wrapper_of(stock: Callable) -> Callable:
        def schema(cls, source, handler):
            return no_info_wrap_validator_function(validator, handler(source))

        return schema

    return wrapper_of
