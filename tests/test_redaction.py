"""What an environment's secrets are, and that none of them is left in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.redaction import redact, secrets_of


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "hf_abcdef", "hf_abcdef"),
        ("OPENAI_API_KEY", " sk-abcdef\n", "sk-abcdef"),
        ("wandb_api_key", "abcdef0123", "abcdef0123"),
        ("AWS_SECRET_ACCESS_KEY", "ab/cd+ef", "ab/cd+ef"),
        ("DB_PASSWORD", "hunter2", "hunter2"),
        ("HTTPS_PROXY", "http://me:hunter2@proxy:3128", "hunter2"),
        ("https_proxy", "http://me:hunter%402@proxy", "hunter@2"),
        ("HF_ENDPOINT", "https://hf_abcdef@mirror/x", "hf_abcdef"),
    ],
)
def test_a_key_or_password_is_a_secret_and_its_place_says_whose(name: str, value: str, secret: str) -> None:
    assert secrets_of({name: value})[secret] == name
    assert redact(f"refused: {secret}!", {name: value}) == f"refused: [{name}]!"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false-or-true"),
        ("HF_TOKEN_PATH", "/somewhere/token"),
        ("KEYBOARD", "us-international"),
        ("API_KEY", "no"),
        ("PATH", "/usr/bin"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("HF_TOKEN", ""),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str) -> None:
    assert secrets_of({name: value}) == {}


def test_a_secret_within_another_leaves_nothing_of_the_longer_one() -> None:
    assert redact("abcdefgh abcdef", {"A_KEY": "abcdef", "B_KEY": "abcdefgh"}) == "[B_KEY] [A_KEY]"


@given(st.text(), st.dictionaries(st.sampled_from(["HF_TOKEN", "B_KEY"]), st.text(alphabet="xyz-0", min_size=6), min_size=1), st.text())
def test_no_secret_is_left_in_any_text(before: str, environment: dict[str, str], after: str) -> None:
    text = redact(before + "".join(environment.values()) + after, environment)
    assert not any(secret in text for secret in secrets_of(environment))
