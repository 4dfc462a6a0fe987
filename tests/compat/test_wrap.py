"""How seams are put in place."""

import pytest

from vllm_gptoss import compat, plugin, seam


class Owner:
    def said(self) -> str:
        return "stock"


@pytest.fixture
def owner() -> type[Owner]:
    return type("Owner", (), {"said": Owner.said})


def first(stock):
    return lambda self: f"first of {stock(self)}"


def second(stock):
    return lambda self: f"second of {stock(self)}"


def test_a_method_is_wrapped_once(owner):
    seam.wrap(owner, "said", first)
    seam.wrap(owner, "said", first)
    assert owner().said() == "first of stock"
    assert seam.stock_of(owner, "said") is Owner.said


def test_two_seams_of_one_method_are_a_mistake(owner):
    seam.wrap(owner, "said", first)
    with pytest.raises(RuntimeError, match=r"Owner\.said is test_wrap\.first already and can't be test_wrap\.second"):
        seam.wrap(owner, "said", second)
    assert owner().said() == "first of stock"


def test_installing_again_changes_nothing(monkeypatch):
    """Nor is any method wrapped by two of the seams."""
    plugin.register()
    compat._install_where_answers_are_parsed()
    wrapped = {}

    def watched(owner, name, wrapper_of):
        before = getattr(owner, name)
        seam.wrap(owner, name, wrapper_of)
        assert getattr(owner, name) == before
        wrapped[owner, name] = wrapped.get((owner, name), 0) + 1

    monkeypatch.setattr(compat, "wrap", watched)
    compat.install()
    compat._install_where_answers_are_parsed()
    assert len(wrapped) > 25
    assert set(wrapped.values()) == {1}
