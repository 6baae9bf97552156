"""``job=push``: put a saved adapter on the Hugging Face Hub, with a model card made of its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from neuroada.backbones.places import BUNDLED
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.hub.card import CARD_FILE, card
from neuroada.hub.card_facts import CardFacts, run_of
from neuroada.hub.eval_results import RESULTS_FILE, leaderboard_file
from neuroada.hub.licences import Licence, licence_of
from neuroada.hub.shared_files import write_shared
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.files import PROMPTS_FILE
from neuroada.runs.foreign_files import refuse_other_files
from neuroada.runs.listing import Run
from neuroada.runs.retyped_command import retyped
from neuroada.sparse.hub_repository import is_hub_model, pushed
from neuroada.storage.whole_files import whole_folder, write_whole

FOLDER = "hub"
"""In the job's run folder: what is pushed."""
_OURS = (PROMPTS_FILE, RESULTS_FILE)
"""Files of an earlier push that this one may not have."""


def push(run: RunConfig, folder: Path) -> None:
    """Write ``hub/`` into the job's run folder, all that is pushed; then push it, unless ``push.dry_run`` is set.

    Raises:
        UserError, AdapterError: The adapter cannot be read or was changed, its base has no name that others know, or
            the hub cannot be reached or refuses it.
    """
    refuse_other_files(folder, own=lambda file: FOLDER in file.relative_to(folder).parts[0])
    origin = AdapterOrigin.read(Path(run.adapter))
    made_by = run_of(origin.directory)
    open_saved(origin.directory, allow_precision=True)  # a damaged adapter is not published
    facts = _facts(run, origin, made_by)
    target = folder / FOLDER
    with whole_folder(target) as written:
        _write(facts, written)
    _say(f"{'would push' if run.push.dry_run else 'pushing'} {_listed(target)}")
    if run.push.dry_run:
        _say(f"nothing is pushed; look at {_shown(target)}")
        return
    address = pushed(
        target,
        facts.repo,
        private=run.push.private,
        revision=run.push.revision,
        create_pr=run.push.create_pr,
        commit_message=run.push.commit_message,
        replaces=_OURS,
    )
    _say(f"pushed: {address}")
    _say(f"load it with: adapter={facts.repo}")


def _facts(run: RunConfig, origin: AdapterOrigin, made_by: Run) -> CardFacts:
    named = origin.header.get("base_model_name_or_path")
    is_bundled = run.push.base_model is None and named == BUNDLED
    base = named if is_bundled else _shared_base(run, named)
    licence = Licence("mit", "that of the base") if is_bundled else licence_of(run.push.licence, base)
    if is_bundled and run.push.licence is not None:
        licence = licence_of(run.push.licence, None)
    overrides = retyped(_with_base(made_by.config, base)) if made_by.result else []
    return CardFacts(run.push, origin, made_by, base, is_bundled, licence, tuple(overrides))


def _shared_base(run: RunConfig, named: str | None) -> str | None:
    """A name of the base that others can load it by."""
    base = run.push.base_model or named
    if base is not None and run.push.base_model is None and not is_hub_model(base):
        raise UserError(
            f"adapter={run.adapter}: its base {base} is a folder of one machine; give its name on the hub, "
            "push.base_model=<owner>/<name>"
        )
    return base


def _with_base(config: Mapping[str, Any], base: str | None) -> dict[str, Any]:
    model = dict(config.get("model") or {})
    return {**config, "model": {**model, "name_or_path": base or model.get("name_or_path")}}


def _write(facts: CardFacts, folder: Path) -> None:
    write_shared(facts.origin.directory, folder, facts.base)
    write_whole(folder / CARD_FILE, str(card(facts)))
    results = leaderboard_file(facts.run)
    if results is not None:
        (folder / RESULTS_FILE).parent.mkdir()
        write_whole(folder / RESULTS_FILE, results)


def _listed(folder: Path) -> str:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return ", ".join(files)


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _say(line: str) -> None:
    # Not through the logger: paths and addresses are there to be copied, so that they may not be broken.
    Console(highlight=False).print(line, soft_wrap=True, markup=False)
