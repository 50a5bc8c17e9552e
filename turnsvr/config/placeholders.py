"""Texts that stand where a secret is to be put: readers of the example or template know them.

A secret made by chance is none of them: what is taken for one consists of a template's marks or of whole words alone.
"""

from __future__ import annotations

import re
from itertools import groupby


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAME = r"\s*(?:[A-Z_][A-Z0-9_]{2,}|[a-z][A-Za-z0-9_.-]{2,})(?![A-Za-z0-9])"
"""A variable's name, as no secret made by chance is likely to have one after an opening mark."""
_LONE_NAME = r"(?:[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*|[a-z]+(?:[A-Z][a-z]+)+)"
"""The same after a mark that has no closing one: of one case, or of words in camel case."""
_MARKS = re.compile(
    rf"""
      (?: <[\w .,:'/-]*> | \[[\w .,:'/-]*\] | \{{[\w .,:'/-]*\}} )   # <your secret>, [your secret key here], {{secret}}
    | .* [$\#]\{{{_NAME}(?:[\s:?+=\#%/,(\[|!-].*)?\}} .*           # ${{SECRET:-none}}, #{{secret}}
    | .* \$\({_NAME}(?:\s[^)]*)?\) .*                             # $(SECRET), $(cat secret)
    | .* (?: \{{\{{.*\}}\}} | \{{%.*%\}} | <%.*%> | %\({_NAME}\)s ) .*    # {{{{ secret }}}}, <%= secret %>, %(secret)s
    | \${_LONE_NAME} | %\w+% | @\w+@ | __\w+__                    # $SECRET, %SECRET%, @SECRET@, __turnSecret__
    | ENC\[.* | !(?:env|file)\b.*                                 # what sops and the quotes around a tag leave behind
    """,
    re.VERBOSE | re.DOTALL,
)
_TELLING = _words(
    """
    change changed changeit changeme credential credentials default dummy enter example examples fixme foobar
    insert key keys letmein pass passphrase passwd password passwords placeholder pwd qwerty replace replaced
    replaceme sample secret secrets tbd test testing todo token tokens undefined
    """
)
"""One of these words, and beside it none but these and the next: a placeholder."""
_FILLING = _words(
    """
    a actual admin an and api app at auth authentication bar be before below by com coturn demo fill foo for
    from generate generated go goes here hex http https in it jwt least length live local long me min must my
    net new of one or org our output own please prod production put random really rest safe secure set shared
    should some something static string strong stun super that the this to turn turnserver turnsvr use user
    text username value very want web webrtc with xxx xxxx you your
    """
)
_SAMPLES = _words(
    """
    astringsecretatleast256bitslong n0t4ctuallymatr1xd0torgsshar3d5ecret4obviousreasons north
    openrelayproject your256bitsecret
    """
)
"""What coturn's, Synapse's and jwt.io's documents show, without punctuation."""
_ROWS = ("01234567890123456789", "12345678901234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")
_LOOKALIKES = str.maketrans("013457$@", "oieastsa")
_LEAST_REPEATED = 3
_LEAST_ROW = 4
_MAX_CHARACTERS = 100
"""A longer text is no placeholder made of words."""
_LONGEST_WORD = max(map(len, _TELLING | _FILLING))


def is_template(text: str) -> bool:
    """Whether it has a template's marks: ${DOMAIN}, <your domain>, {{ domain }}."""
    return _MARKS.fullmatch(text.strip()) is not None


def is_placeholder(text: str) -> bool:
    """Whether a secret's text is an example's or a template's, or one character over and over."""
    stripped = text.strip()
    if is_template(stripped) or _is_monotonous(stripped):
        return True
    if len(stripped) > _MAX_CHARACTERS or not stripped.isascii():
        return False
    lowered = stripped.lower()
    plain = "".join(filter(str.isalnum, lowered))
    numberless = plain.rstrip("0123456789")
    return (
        plain in _SAMPLES
        or numberless in _SAMPLES
        or _is_row(plain)
        or _is_of_words(plain)
        or _is_of_words(numberless)
        or _is_of_words("".join(filter(str.isalpha, lowered.translate(_LOOKALIKES))))
    )


def _is_monotonous(text: str) -> bool:
    """One character over and over, or nothing but punctuation: xxxx, ****, …"""
    bare = "".join(filter(str.isalnum, text))
    if not bare:
        return text == "…" or (text.isascii() and len(text) >= _LEAST_REPEATED)
    return len(bare) >= _LEAST_REPEATED and len(list(groupby(bare))) == 1


def _is_row(text: str) -> bool:
    """1234, abcdef, qwerty: what the fingers find first."""
    return len(text) >= _LEAST_ROW and any(row.startswith(text) for row in _ROWS)


def _is_of_words(text: str) -> bool:
    """Whether the text can be cut into the words above, one of the telling ones among them."""
    reached: list[set[bool]] = [set() for _ in range(len(text) + 1)]
    reached[0].add(False)
    for begin, ways in enumerate(reached):
        for end in range(begin + 1, min(begin + _LONGEST_WORD, len(text)) + 1) if ways else ():
            word = text[begin:end]
            if word in _TELLING:
                reached[end].add(True)
            elif word in _FILLING:
                reached[end] |= ways
    return True in reached[-1]
