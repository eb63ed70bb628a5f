"""What the licences of prepared sets ask for, and what a run or a preparation may use of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vlm.contracts.errors import InputError

# flag of a licence -> what it says
FLAGS: Mapping[str, str] = {
    "noncommercial": "not for commercial use",
    "share_alike": "what is made from it must carry the same licence",
    "model_output": "answers were written by a hosted model whose terms limit competing use",
    "no_media_rights": "the licence covers the texts, not the pictures",
    "credentialed": "it needs a signed agreement",
    "unknown": "nobody has said what it asks for",
}
# policy -> flags that it refuses; what is unknown is never taken for permissive
POLICIES: Mapping[str, frozenset[str]] = {
    "any": frozenset(),
    "no_noncommercial": frozenset({"noncommercial", "unknown"}),
    "permissive_only": frozenset(FLAGS),
}
NAMELESS = ("", "unknown", "noassertion", "none", "licenseref-unknown")


class LicenceRefused(InputError):
    """A policy does not allow a set."""


def flags_of(manifest: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """flag -> the licences in a prepared split that cause it.

    manifest: None of a stream, which has none. A licence without a name, and every licence of a manifest that lists
    no flags, is "unknown".
    """
    license = (manifest or {}).get("license") or {}
    names, stated = sorted(license.get("counts") or ()), license.get("flags")
    found = {flag: sorted(causes) for flag, causes in (stated or {}).items()}
    unknown = [name for name in names if stated is None or _is_nameless(name)] or ([] if names else ["its licence"])
    if unknown:
        found["unknown"] = sorted({*unknown, *found.get("unknown", ())})
    return dict(sorted(found.items()))


def refused(name: str, flags: Mapping[str, Iterable[str]], policy: str) -> Iterator[str]:
    """One line for each licence of a set that the policy refuses. name: of the set.   flags: as `flags_of`."""
    for flag, causes in flags.items():
        if flag in POLICIES[policy] or (flag not in FLAGS and policy != "any"):
            yield from (f"{name}: {cause} is {flag} ({FLAGS.get(flag, 'no known flag')})" for cause in causes)


def union(sets: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, dict[str, list[str]]]:
    """flag -> set -> licences that cause it, over all sets. sets: set -> its flags."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, flags in sets.items():
        for flag, causes in flags.items():
            found.setdefault(flag, {})[name] = list(causes)
    return dict(sorted(found.items()))


def in_words(flags: Mapping[str, Mapping[str, Iterable[str]]]) -> Iterator[str]:
    """The union of a run for people, one line a flag; one line if there is none."""
    for flag, sets in flags.items():
        causes = "; ".join(f"{name}: {', '.join(causes)}" for name, causes in sets.items())
        yield f"licences: {flag} ({FLAGS.get(flag, 'no known flag')}) by {causes}"
    if not flags:
        yield "licences: none of the sets asks for more than its name"


def refuse_source(name: str, licenses: Mapping[str, Iterable[str]], policy: str) -> None:
    """For a preparation. name: of the source.   licenses: licence -> its flags, as in conf/source.

    Raises: InputError that names each licence of the source that the policy refuses.
    """
    flags: dict[str, list[str]] = {}
    for license, asked in licenses.items():
        for flag in (*asked, *(["unknown"] if _is_nameless(license) else [])):
            flags.setdefault(flag, []).append(license)
    if lines := list(refused(f"source {name}", flags, policy)):
        listing = "\n".join(f"  {line}" for line in lines)
        raise LicenceRefused(
            f"licence_policy={policy} does not allow this source; nothing was started\n{listing}\n"
            "Choose another source, or allow it with licence_policy=any"
        )


def _is_nameless(license: str) -> bool:
    return license.strip().lower() in NAMELESS
