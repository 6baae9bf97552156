"""Entries of ``task.train`` and ``task.benchmarks`` -> data sets.

An entry is the name of a known data set, a path, or ``{name, path, config, split, revision, columns, where, rows,
protocol}``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError, suggest
from neuroada.config.requirements import require_name, require_whole
from neuroada.data.catalog import DATASETS, Dataset, Origin, lookup
from neuroada.data.data_split import DataSplit
from neuroada.data.picking import Picked
from neuroada.data.tables import SUFFIXES, suffix_of
from neuroada.tasks.judges import Judge
from neuroada.tasks.label_protocol import LabelProtocol
from neuroada.tasks.protocol import Protocol, ProtocolError
from neuroada.tasks.protocols import PROTOCOLS, made, merged
from neuroada.tasks.template_protocol import TemplateProtocol

KEYS = ("name", "path", "config", "split", "revision", "columns", "where", "rows", "protocol")

MakeJudge = Callable[[Mapping[str, Any], str], Judge]
"""Creates the judge of a node with a ``_target_``; the second argument is its key, for messages."""


def _no_own_judge(node: Mapping[str, Any], key: str) -> Judge:
    raise UserError(f"{key}: {node['_target_']} is not created here; run it from the command line")


@dataclass(frozen=True)
class Sources:
    """What entries are looked up in.

    Args:
        data_dir: Folder with the files of known data sets.
        sets: ``data.sets``: data set -> name of its protocol.
        protocols: Every protocol that may be named.
        settings: ``protocol.*``: keys that replace those of data sets that name no protocol; null replaces nothing.
        make_judge: Creates judges that are functions of the user.
        labelled: The protocol of every data set, where the task is to label texts; None where each has its own.
        only_unprompted: Whether ``settings`` are left to data sets that have no protocol at all.
    """

    data_dir: Path
    sets: Mapping[str, str]
    protocols: Mapping[str, Protocol]
    settings: Mapping[str, Any]
    make_judge: MakeJudge
    labelled: LabelProtocol | None = None
    only_unprompted: bool = False

    @classmethod
    def of(
        cls,
        data_dir: Path | str,
        sets: Mapping[str, str] | None = None,
        protocols: Mapping[str, Protocol] = PROTOCOLS,
        settings: Mapping[str, Any] | None = None,
        make_judge: MakeJudge = _no_own_judge,
        labelled: LabelProtocol | None = None,
    ) -> "Sources":
        """By default, only what comes with the package."""
        return cls(Path(data_dir).expanduser(), sets or {}, protocols, settings or {}, make_judge, labelled)

    def for_questions(self) -> "Sources":
        """The same where only the questions of rows count, as in what another run has trained on.

        ``settings`` says how this run prompts, which those rows need not suit. But the question of a row of no known
        kind is its prompt, and to be compared with this run's it must be written in the same way.
        """
        prompt = {key: self.settings.get(key) for key in ("prompt", "completion")}
        return replace(self, settings=prompt, only_unprompted=True)

    def splits(self, entries: Sequence[Any], split: str, key: str) -> list[DataSplit]:
        """One split of each entry.

        Args:
            entries: As configured.
            split: For entries that name none.
            key: Where they are configured, for messages.

        Raises:
            UserError: An entry is malformed or unknown, or two different ones have one name: results are kept by it.
        """
        named: dict[str, Any] = {}
        splits = []
        for place, entry in enumerate(entries):
            one = self._split(entry, split, f"{key}[{place}]")
            if named.setdefault(one.dataset.name, entry) != entry:
                raise UserError(f"{key}[{place}]: another data set is called {one.dataset.name}, too; give one a name")
            splits.append(one)
        return splits

    def dataset(self, name: str) -> Dataset:
        """A data set that is named alone.

        Raises:
            UserError: It is unknown, or its protocol is.
        """
        dataset = self._known(name)
        if self.labelled is not None:
            return replace(dataset, protocol=self.labelled)
        return dataset if name in self.sets else self._prompted(dataset)

    def _split(self, entry: Any, split: str, key: str) -> DataSplit:
        if isinstance(entry, str) and not _is_path(entry):
            return DataSplit(self.dataset(entry), split, self.data_dir)
        given = {"path": entry} if isinstance(entry, str) else _checked(entry, key)
        dataset = replace(self._described(given, key), picked=_picked(given, key))
        if dataset.origin is None and given.get("split"):
            require_name(f"{key}.split", given["split"])
        return DataSplit(dataset, given.get("split") or split, self.data_dir)

    def _described(self, entry: Mapping[str, Any], key: str) -> Dataset:
        protocol = entry.get("protocol")
        if entry.get("path") is None and protocol is None:
            return self.dataset(entry["name"])
        if entry.get("path") is None:
            dataset = self._known(entry["name"])
        else:
            origin = Origin(entry["path"], entry.get("config"), entry.get("revision"), entry.get("columns") or {})
            dataset = Dataset(name_of(entry), origin=origin)
        if self.labelled is not None:
            if protocol is not None:
                raise UserError(f"{key}.protocol: task.objective={self.labelled.name} has its own; leave it out")
            return replace(dataset, protocol=self.labelled)
        if isinstance(protocol, str):
            return replace(dataset, protocol=self._named(protocol, f"{key}.protocol"))
        if protocol is None:
            return self._prompted(dataset)
        return self._applied(dataset, protocol, f"{key}.protocol")

    def _known(self, name: str) -> Dataset:
        """A data set that is named, with its own protocol; folders and files are named by it."""
        require_name("name", name)
        if name in self.sets:
            return self._of_set(name, self.sets[name])
        if name not in DATASETS and (self.data_dir / name).is_dir():
            return Dataset(name)
        return lookup(name, (*DATASETS, *self.sets))

    def _of_set(self, name: str, protocol: str) -> Dataset:
        chosen = self._named(protocol, f"data.sets.{name}")
        if name not in DATASETS:
            return Dataset(name, chosen)
        known = DATASETS[name]
        assert known.protocol is not None
        if known.protocol.name != protocol:
            raise UserError(
                f"data.sets.{name}={protocol}: {name} is a known data set of the {known.protocol.name} "
                "protocol; give yours another name"
            )
        return known

    def _named(self, name: str, key: str) -> Protocol:
        if name not in self.protocols:
            raise UserError(
                f"{key}={name}: no such protocol; {suggest(name, self.protocols)} (yours is a file "
                f"protocol/{name}.yaml in a folder given with --config-dir)"
            )
        return self.protocols[name]

    def _prompted(self, dataset: Dataset) -> Dataset:
        """The data set as ``protocol.*`` has it."""
        if self.only_unprompted and dataset.protocol is not None:
            return dataset
        return self._applied(dataset, self.settings, "protocol")

    def _applied(self, dataset: Dataset, settings: Mapping[str, Any], key: str) -> Dataset:
        """The data set with keys of its protocol replaced."""
        given = {name: value for name, value in settings.items() if value is not None}
        if not given:
            return dataset
        judge = given.get("judge")
        own_judge = (
            self.make_judge(judge, f"{key}.judge") if isinstance(judge, Mapping) and "_target_" in judge else None
        )
        if dataset.protocol is None:
            return replace(dataset, settings=given, own_judge=own_judge)
        base = dataset.protocol
        if not isinstance(base, TemplateProtocol):
            raise UserError(f"{key}: the protocol {base.name} is a class, of which no key can be replaced")
        if "judge" not in given:
            own_judge = base.own_judge
        try:
            protocol = made(base.name, merged(base.keys, given), own_judge)
        except ProtocolError as error:
            raise UserError(f"{key}.{error}") from error
        return replace(dataset, protocol=protocol)


def name_of(entry: Any) -> str:
    """The data set that an entry names: its ``name``, or the last part of its path without a suffix, fit for a folder.

    Raises:
        UserError: It is no usable name.
    """
    if isinstance(entry, str):
        entry = {"path": entry} if _is_path(entry) else {"name": entry}
    name = entry.get("name")
    if name is None:
        last = Path(str(entry.get("path"))).name
        name = last.removesuffix(Path(last).suffix) if suffix_of(last) in SUFFIXES else last
        name = re.sub(r"[^\w.+-]+", "_", name)
    require_name("name", str(name))
    return str(name)


def _picked(entry: Mapping[str, Any], key: str) -> Picked:
    try:
        return Picked(entry.get("where"), entry.get("rows"))
    except ProtocolError as error:
        raise UserError(f"{key}.{error}") from error


def _is_path(entry: str) -> bool:
    return "/" in entry or suffix_of(entry) in SUFFIXES


def _checked(entry: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise UserError(f"{key}={entry}: give the name of a data set, a path, or {{name: ..., path: ...}}")
    for name in entry:
        if name not in KEYS:
            raise UserError(f"{key}.{name}: no such key; {suggest(str(name), KEYS)}")
    for name in ("name", "path", "config", "split", "revision", "where"):
        if not isinstance(entry.get(name), (str, type(None))):
            raise UserError(f"{key}.{name}={entry[name]}: must be a text")
    require_whole(f"{key}.rows", entry.get("rows"), 1)
    if entry.get("name") is None and entry.get("path") is None:
        raise UserError(f"{key}: has neither a name nor a path; give one")
    columns = entry.get("columns")
    if columns is not None and not (isinstance(columns, Mapping) and all(isinstance(v, str) for v in columns.values())):
        raise UserError(f"{key}.columns={columns}: give the columns to rename, such as {{question: q, answer: a.text}}")
    return entry
