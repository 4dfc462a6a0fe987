"""The names that a model answers to beside those that it is served by."""

from collections.abc import Callable

PUBLISHER, FAMILY = "openai/", "gpt-oss-"


def other_name(name: str) -> str | None:
    """The Python Agents SDK takes `openai/` for the name of a provider and leaves it out; others put it in front."""
    if name.startswith(PUBLISHER + FAMILY):
        return name.removeprefix(PUBLISHER)
    return PUBLISHER + name if name.startswith(FAMILY) else None


def is_base_model(stock: Callable) -> Callable:
    def is_base_model(self, model_name: str) -> bool:
        other = other_name(model_name)
        return stock(self, model_name) or (other is not None and stock(self, other))

    return is_base_model
