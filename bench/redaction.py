"""Pure: text and an environment -> the text without that environment's secrets.

Nothing here writes a key anywhere; this is for what libraries and other people's tasks say in their errors and logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

_NAMES = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"://(?P<user>[^/@\s]+)@")
SHORTEST = 6
"""Characters; a shorter value is no key, and would be found in words."""


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Secret -> the name of the variable that holds it: values of variables named as keys are, and passwords in any URL."""
    found = {value.strip(): name for name, value in environment.items() if _NAMES.search(name)}
    for name, value in environment.items():
        for user in _USER_IN_URL.findall(value):
            password = user.partition(":")[2] or user  # a token may stand alone before the @
            found = {password: name, unquote(password): name} | found
    return {secret: name for secret, name in found.items() if len(secret) >= SHORTEST}


def redact(text: str, environment: Mapping[str, str]) -> str:
    """The text with `[NAME]` for every secret in it, the longest first."""
    found = secrets_of(environment)
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, f"[{found[secret]}]")
    return text
