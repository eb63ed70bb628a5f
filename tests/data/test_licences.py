"""What the licences of all sets of a run ask for is told, and refused where the policy says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from tests.data.small_sets import small_set
from tests.data.test_sources import settings
from vlm.contracts.errors import InputError
from vlm.contracts.settings import DataSettings, SetUse
from vlm.data.licences import FLAGS, POLICIES, flags_of, in_words, refuse_source
from vlm.data.sources import open_all
from vlm.training.folder import recipe, run_id


def licensed(root: Path, name: str, **license: Any) -> None:
    """A small set whose manifest says so of its licences."""
    path = small_set(root, name, "train", 3) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "license": license}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("licensed")
    licensed(root, "free", counts={"MIT": 3}, flags={})
    licensed(root, "shared", counts={"CC-BY-SA-4.0": 2, "MIT": 1}, flags={"share_alike": ["CC-BY-SA-4.0"]})
    licensed(root, "private", counts={"CC-BY-NC-4.0": 3}, flags={"noncommercial": ["CC-BY-NC-4.0"]})
    licensed(root, "nameless", counts={"LicenseRef-unknown": 3}, flags={})
    licensed(root, "silent", counts={"MIT": 3})
    return root


def opened(root: Path, policy: str, *names: str) -> dict[str, Any]:
    return open_all(str(root), settings({name: SetUse("train") for name in names}, licence_policy=policy)).record


def test_the_flags_of_a_run_are_the_union_over_its_sets_with_the_sets_that_cause_each(root: Path) -> None:
    assert opened(root, "any", "free", "shared", "private")["license_flags"] == {
        "noncommercial": {"private": ["CC-BY-NC-4.0"]},
        "share_alike": {"shared": ["CC-BY-SA-4.0"]},
    }
    assert opened(root, "any", "free")["license_flags"] == {}


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ("any", {"free", "shared", "private", "nameless", "silent"}),
        ("no_noncommercial", {"free", "shared"}),
        ("permissive_only", {"free"}),
    ],
)
def test_a_policy_refuses_sets_by_their_flags_and_unknown_is_never_permissive(
    root: Path, policy: str, allowed: set[str]
) -> None:
    for name in ("free", "shared", "private", "nameless", "silent"):
        if name in allowed:
            opened(root, policy, name)
        else:
            with pytest.raises(InputError, match=rf"data.licence_policy: {policy} (.|\n)*  {name}: \S+ is \w+ \("):
                opened(root, policy, name)


def test_every_refused_set_is_named_with_licence_flag_and_key(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        opened(root, "permissive_only", "free", "shared", "private")
    lines = str(caught.value).splitlines()
    assert lines[1:3] == [
        "  shared: CC-BY-SA-4.0 is share_alike (what is made from it must carry the same licence)",
        "  private: CC-BY-NC-4.0 is noncommercial (not for commercial use)",
    ]
    assert "data.train.SET=null" in lines[3]


def test_a_flag_that_nobody_knows_is_not_permissive(tmp_path: Path) -> None:
    licensed(tmp_path, "odd", counts={"X": 3}, flags={"haunted": ["X"]})
    opened(tmp_path, "any", "odd")
    with pytest.raises(InputError, match="X is haunted"):
        opened(tmp_path, "no_noncommercial", "odd")


def test_a_stream_has_no_licence_that_is_known() -> None:
    assert flags_of(None) == {"unknown": ["its licence"]}


def test_a_source_is_refused_before_it_is_prepared() -> None:
    table = {"MIT": [], "CC-BY-NC-4.0": ["noncommercial"], "LicenseRef-Unknown": []}
    refuse_source("pairs", table, "any")
    with pytest.raises(InputError) as caught:
        refuse_source("pairs", table, "no_noncommercial")
    assert "source pairs: CC-BY-NC-4.0 is noncommercial" in str(caught.value)
    assert "source pairs: LicenseRef-Unknown is unknown" in str(caught.value)
    refuse_source("mnist", {"CC-BY-SA-3.0": ["share_alike"]}, "no_noncommercial")


def test_policies_and_flags_are_those_of_the_settings() -> None:
    from data_prep.settings import Flag, PrepareSettings

    policy = get_args(get_type_hints(DataSettings)["licence_policy"])
    assert policy == get_args(get_type_hints(PrepareSettings)["licence_policy"]) == tuple(POLICIES)
    assert {*get_args(Flag), "unknown"} == set(FLAGS)


def test_a_policy_that_allows_a_run_does_not_make_it_another_run() -> None:
    config = {"name": "x", "data": {"train": {"mnist": {"split": "train"}}}}
    for policy in POLICIES:
        strict = {**config, "data": {**config["data"], "licence_policy": policy}}
        assert run_id(strict) == run_id(config)
        assert recipe(strict) == recipe(config)


def test_the_words_of_a_run_name_flag_set_and_licence(root: Path) -> None:
    lines = list(in_words(opened(root, "any", "private", "shared")["license_flags"]))
    assert lines[0] == "licences: noncommercial (not for commercial use) by private: CC-BY-NC-4.0"
    assert len(lines) == 2
    assert list(in_words({})) == ["licences: none of the sets asks for more than its name"]
