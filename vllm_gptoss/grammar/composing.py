"""Where vLLM composes its parsers: what stands in place of its method gives gpt-oss a class of this package.

Each process of vLLM imports this, whatever it serves; so the parser is imported with the first one that is composed.
"""

from collections.abc import Callable


def compose_parser(before: Callable[[], None]) -> Callable[[Callable], Callable]:
    """`before` is called each time before a parser of gpt-oss is composed."""

    def wrapper_of(stock: Callable) -> Callable:
        def _compose_parser(cls, *, is_harmony: bool, **options):
            if not is_harmony:
                return stock(is_harmony=is_harmony, **options)
            from vllm_gptoss.grammar.serving import composed

            before()
            return composed(**options)

        return _compose_parser

    return wrapper_of
