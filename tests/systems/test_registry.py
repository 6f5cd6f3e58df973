"""Systems by name, and their settings."""

from __future__ import annotations

import pytest

from retract.errors import ConfigError
from retract.systems.registry import make_system


def test_settings_given_as_text_are_read_as_their_type() -> None:
    config = make_system("fedshare", {"rounds": "7", "mix": "0.25"}).config
    assert config.model_dump()["rounds"] == 7
    assert config.model_dump()["mix"] == 0.25


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fedsharre", {}, r"unknown system 'fedsharre'; known systems: exact, fedshare, lightgcn"),
        (
            "fedshare",
            {"round": 3},
            r"fedshare has no setting 'round': the nearest are rounds",
        ),
        ("fedshare", {"rounds": 0}, r"setting rounds of fedshare is 0: it must be a whole number at least 1$"),
        ("fedshare", {"mix": "2"}, r"setting mix of fedshare is '2': it must be a number at least 0 and at most 1$"),
        ("fedshare", {"item_rate": "fast"}, r"item_rate of fedshare is 'fast': it must be a number above 0$"),
        ("lightgcn", {"steps": "1.5"}, r"setting steps of lightgcn is '1.5': it must be a whole number at least 1$"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_possible(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_system(name, settings)
