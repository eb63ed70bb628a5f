"""What stands as one token of a caption: our own rules, each with what the public tokenizer was observed to do.

At every place of the text the first rule that fits counts; a character that fits none vanishes.
"""

from __future__ import annotations

import re
import unicodedata

# Observed to keep their full stop wherever they stand; "sat." and "sun." lose it.
ABBREVIATIONS = (
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri mr mrs ms dr drs prof sr jr rev "
    "hon pres gen col capt lt sgt cpl maj adm gov sen sens rep reps supt mme mlle messrs st ste mt ft ave blvd rd sq "
    "ct rt bldg dept univ assn assoc est inc co cos corp ltd plc bros intl natl vs etc al cf esq ext tel adv ph.d "
    "calif colo fla ga ind kan ky md mich minn mo mont neb nev okla penn tenn va vt wis wyo ariz ala conn"
)
CAPITALIZED = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"  # the same, but lower-case "mass." loses it
NUMBERED = "no nos fig figs pp op art ca"  # the same only before a number: "no. 5", but "no."
# "plan B. The dog" loses the stop of its single letter, "plan B. Dogs" keeps it.
BEGINNINGS = (
    "A An As At But He Her Here However If In It Many More Now One Our She Since So Some That The Their Then There "
    "These They This We What When While You"
)
WITH_APOSTROPHE = "c'mon s'mores li'l ol' dunkin' 'em 'til 'till 'cause 'n"  # written as they are

# How symbols are counted, £ and € included.
WRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "¢": "cents", "£": "#", "€": "$",
}  # fmt: skip

_MARKS = "".join(mark for mark in map(chr, range(0x300, 0xFB00)) if unicodedata.category(mark) in {"Mn", "Mc"})
_LETTER = rf"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u218b\u2460-\u2793]|[{_MARKS}])"
_ALNUM = rf"(?:{_LETTER}|\d)"
_HYPHEN = r"[-_\u2010\u2011]"
_APOSTROPHE = "['\u2019]"
_CLITIC = rf"{_APOSTROPHE}(?:s|m|d|re|ve|ll)(?![A-Za-z])"
# An apostrophe stays in a word after a first single letter (O'Hare, d'or) and between vowels (ma'am); "dog'cat" is two.
_PIECE = (
    rf"(?:(?![A-Za-z]{_CLITIC})[dlnoA-Z]{_APOSTROPHE}(?={_LETTER}{{2}}))?"
    rf"{_ALNUM}++(?:(?<=[aeiouAEIOU]){_APOSTROPHE}(?=[aeiou]){_ALNUM}++)?"
)
_DOTTED = rf"{_LETTER}{_ALNUM}*+(?:[.!?]{_LETTER}{_ALNUM}*+)++"  # "end.Start", "photo.png"
_INITIALS = r"(?:[A-Za-z]\.)"
_HYPHENED = rf"(?:{_HYPHEN}(?:{_INITIALS}{{2,}}|{_PIECE}))"
_SLASHED = r"[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+"  # "his/her", "4/5-inch"; letters with accents are parted there


def _any(words: str) -> str:
    return "(?:" + "|".join(map(re.escape, sorted(words.split(), key=len, reverse=True))) + ")"


_RULES = [
    r"https?://[^\s\"<>()]*[\w/]|www\.[^\s\"<>()]*[\w/]|\w++\.(?:com|org|net|edu)/[^\s\"<>()]*[\w/]",
    r"[\w.+-]{1,64}@[\w.-]*\w",
    rf"@[A-Za-z]\w*|\#{_LETTER}+",
    r"</?[A-Za-z]+ ?/?>",
    # "can't" is "ca n't", "cannot" is "can not"
    r"(?i:[a-z]+?(?=n['\u2019`]t(?![a-z]))|can(?=not\b)|'t(?=(?:is|was)\b))",
    r"(?i:(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:lem|gim)(?=me\b))",
    rf"(?P<clitic>(?i:n['\u2019`]t(?![a-z])|{_CLITIC}))",
    rf"[yY]{_APOSTROPHE}(?={_LETTER})",  # "y'all" is "y' all"
    rf"{_APOSTROPHE}(?:n{_APOSTROPHE}|\d0s(?!{_ALNUM})|\d\d(?!\S))",  # rock 'n' roll, the '90s, but not 5'10"
    rf"(?i:{_any(WITH_APOSTROPHE)})(?!{_ALNUM})".replace("'", _APOSTROPHE),
    # "1 1/2" and "(212) 555-1234" are one token, and "2.5-inch" and "-5"; "9:30am" is two
    r"\d{1,4} \d{1,4}/\d{1,4}|\(\d{3}\) ?\d{3}-\d{4}",
    rf"\d+(?:[.,]\d+)+{_HYPHENED}+",
    r"[-+]?[.,:]?\d+(?:[.,:]\d+)+|[-+][.,:]?\d+|[.,:]\d+",
    # words
    rf"{_INITIALS}+(?!{_ALNUM})(?:{_HYPHENED}+|(?<=\.[A-Za-z]\.)|(?!\s+{_any(BEGINNINGS)}\b))",
    rf"(?:(?i:{_any(ABBREVIATIONS)})|{_any(CAPITALIZED)}|{_any(CAPITALIZED.upper())})\.(?!{_ALNUM})",
    rf"(?i:{_any(NUMBERED)})\.(?= ?\d)",
    r"[A-Z]+(?:[&+][A-Z]+)+|[A-Z]{1,3}\$",
    rf"{_SLASHED}(?:/{_SLASHED})++",
    rf"(?:{_DOTTED}|{_PIECE}){_HYPHENED}*",
    # marks
    r"[:;=]-?[()DP](?!\w)",
    r"[!?]{2,}|\*+|_+|\#+|@+|-{5,}",
    # symbols; quotes, commas, dashes and the like are not among them and so vanish
    r"[#-&(-+/<->@\[-^{-~\u00a1-\u00aa\u00ac\u00ae-\u00ba\u00bc-\u00bf\u00d7\u00f7\u2020-\u2022\u2030-\u2034\u2044]",
    r"[\u2070-\u208e\u20ac\u2100-\u215e\u2190-\u2bff\u3001\u3002\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff5e]",
]
TOKENS = re.compile("|".join(_RULES))
