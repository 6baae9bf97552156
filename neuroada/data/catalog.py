"""The data sets of this package, one typed row each: its protocol, and where its files are fetched from.

Files are those of LLM-Adapters (https://github.com/AGI-Edgerunners/LLM-Adapters); paths are relative to ``data.url``.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neuroada.bundled
from neuroada.config.errors import UserError
from neuroada.data.glue import GLUE, Glue
from neuroada.data.picking import Picked
from neuroada.tasks.judges import Judge
from neuroada.tasks.protocol import Protocol
from neuroada.tasks.protocols import COMMONSENSE, MATH


@dataclass(frozen=True)
class RemoteFile:
    """One file upstream."""

    path: str
    """Below ``data.url``."""
    num_rows: int | None = None
    """Rows of the original; a fetched file with another number of rows is rejected."""
    sha256: str | None = None
    """Of the original, with LF or CRLF line endings; None if unknown."""


@dataclass(frozen=True)
class HeldOutSplit:
    """A single upstream file that is shuffled and split into train and validation, as the reference did."""

    source: RemoteFile
    train_share: float
    seed: int
    sha256: Mapping[str, str]
    """Checksums of the reference's parts, by split: equal checksums mean the same rows in the same order."""


@dataclass(frozen=True)
class Origin:
    """Where the user's own data set is."""

    path: str
    """A file, a folder, or the name of a data set on the hub."""
    config: str | None = None
    """Its configuration on the hub, as for ``load_dataset``."""
    revision: str | None = None
    """Its branch, tag or commit on the hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Name to use -> column of its rows."""


@dataclass(frozen=True)
class Dataset:
    """A data set: at its ``origin``, else ``<data.dir>/<name>/<split>.json``, or ``<home>/...`` if ``home`` is set."""

    name: str
    protocol: Protocol | None = None
    """None: the protocol for its kind of rows, with ``settings`` applied."""
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)
    """Upstream file of each split; a split without one must exist already."""
    held_out: HeldOutSplit | None = None
    home: Path | None = None
    """Folder of a data set that ships with the package; it is never fetched."""
    origin: Origin | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a protocol that replace those of the one for its kind of rows."""
    glue: Glue | None = None
    """What a data set of GLUE is read from; its files are looked for in ``data.dir``, then on the hub."""
    own_judge: Judge | None = None
    """The judge among these settings, where it is a function of the user."""
    picked: Picked = field(default_factory=Picked)
    """Which of its rows are used."""


def _training_set(name: str, protocol: Protocol, num_rows: int, sha256: str | None = None) -> Dataset:
    return Dataset(name, protocol, {"train": RemoteFile(f"ft-training_set/{name}.json", num_rows, sha256)})


def _test_set(name: str, protocol: Protocol, num_rows: int, sha256: str | None = None) -> Dataset:
    return Dataset(name, protocol, {"test": RemoteFile(f"dataset/{name}/test.json", num_rows, sha256)})


_BUNDLED = Path(neuroada.bundled.__file__).parent / "data"

_COMMONSENSE_15K = HeldOutSplit(
    source=RemoteFile("ft-training_set/commonsense_15k.json", num_rows=15119),
    train_share=0.7,
    seed=42,
    sha256={
        "train": "73fe0a9eec3bc93470857f0fdf8df35484684968d4f18dbdd831654669d36a61",
        "validation": "c059197af0b8220f95677e0bf62a1e53dfeb15f32041245c9e521f7515eebbd2",
    },
)

_ROWS = (
    _training_set(
        "commonsense_170k", COMMONSENSE, 170420, "687b018be6b4665590772b03d96ceec63926a99573a174f4c8891cce0af53b73"
    ),
    Dataset("commonsense_15k", COMMONSENSE, held_out=_COMMONSENSE_15K),
    _training_set("math_10k", MATH, 9919, "0342d0d860ad8592b579329337c90e42eefd3d9f2898043140cbd120630418b8"),
    _test_set("boolq", COMMONSENSE, 3270, "89df2397cbca81dc31adcc6f7f5b635821aa0565aafde46725b2b4bd39b4dfa9"),
    _test_set("piqa", COMMONSENSE, 1838, "3860d11b9b42e590b6b4bbc1643214d373ed0b0d4ac62fcc7bdceb8e044ad141"),
    _test_set("social_i_qa", COMMONSENSE, 1954, "2318ddcfb429f35cbcb3f4b4f5caeccf9b9b4a51b9e2d0624c2771ee98c9f3a7"),
    _test_set("hellaswag", COMMONSENSE, 10042, "a1bfd0f1729c7e62ba1d1a211c283d459ff6c40476e3d1dcc2941ff338e7d207"),
    _test_set("winogrande", COMMONSENSE, 1267, "6946f5209e7114c65c6d04f8f644c5a061af20d730b1cfe158fff3dc44076fb9"),
    _test_set("ARC-Easy", COMMONSENSE, 2376, "3f32a84716ca6d57d38728bf80cc8117aecd17445c2cf29a68b571b810eb82dc"),
    _test_set("ARC-Challenge", COMMONSENSE, 1172, "2ff5c51f145fd602a081fe3b6452dc1c0f5ecc43c1a3d213e62f9c528d35d10c"),
    _test_set("openbookqa", COMMONSENSE, 500, "8479930f7b8a26052c78250280b5465a4016ca7fc806af440d0f37e243f3099e"),
    _test_set("MultiArith", MATH, 600, "a40f426807c8a563802c2a5b66bda3bcd1eba9c099038fd1199f0dd57de5fd28"),
    _test_set("gsm8k", MATH, 1319, "2cc616a1e0b23ea1df29370476365cde71c4e0aa823fb06cc194c5a8a9381abe"),
    _test_set("AddSub", MATH, 395, "62a8662b1ad40879953c4df0e61883a749d03aa3fc5e71f1cdb842b816e139ff"),
    _test_set("AQuA", MATH, 254, "de677f5f0139340009eb01f17c0db781b4161912cd1f4efa77292f2fcf3478ee"),
    _test_set("SingleEq", MATH, 508),
    _test_set("SVAMP", MATH, 1000, "ffed015784f738f317c5603177861d044c4fc94e09211d78b25e96d46c656e2c"),
    _test_set("mawps", MATH, 238, "c1a708979cbf2b3df9ac4020baacf3e8e73fcf089e1de7dd1b305b810bfaa15f"),
    *(Dataset(name, glue=glue) for name, glue in GLUE.items()),
    Dataset("bundled_choice", COMMONSENSE, home=_BUNDLED),
    Dataset("bundled_arithmetic", MATH, home=_BUNDLED),
)

DATASETS: Mapping[str, Dataset] = {row.name: row for row in _ROWS}


def lookup(name: str, known: Iterable[str] = tuple(DATASETS)) -> Dataset:
    """The data set of that name.

    Args:
        name: Its name.
        known: Every name to suggest.

    Raises:
        UserError: There is none; it has close matches and the whole list.
    """
    if name in DATASETS:
        return DATASETS[name]
    by_lower_case = {present.lower(): present for present in known}
    near = [by_lower_case[match] for match in difflib.get_close_matches(name.lower(), by_lower_case, n=3)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"unknown data set '{name}': {hint}(known: {', '.join(by_lower_case.values())}; for your own give the path of "
        "its file or folder)"
    )
