"""Push an adapter to the Hugging Face Hub from Python: its files, and a short model card."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neuroada.sparse import adapter_files
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.hub_repository import has_file, is_hub_model, pushed

if TYPE_CHECKING:
    from neuroada.sparse.budget import Budget

CARD_FILE = "README.md"
_LOADED = """\
```python
import neuroada
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{base}")
adapter = neuroada.load(model, "{repo}")  # in place; adapter.detach() gives the base back
```
"""


class CanBePushed:
    """What ``Adapter`` can do besides: go to the hub."""

    is_sharded: bool

    def stored(self) -> adapter_files.StoredAdapter:
        """What ``save`` writes."""
        raise NotImplementedError

    def budget(self) -> "Budget":
        """What was trained."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        base_model: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
    ) -> str | None:
        """Push the files of ``save`` and, unless the repository has a README.md, a short card; the commit's address.

        A run's adapter is pushed by ``neuroada job=push``, whose card also has data, scores and command. On a sharded
        model every rank must call it; the first one pushes, and the others get None.

        Args:
            repo_id: ``<owner>/<name>``; made if it is missing.
            base_model: The base's name on the hub, for one that was loaded from a folder. The files say it, too.
            private, token, revision, create_pr, commit_message: As in huggingface_hub.

        Raises:
            AdapterError: The base is a folder here and ``base_model`` is not given, or the hub cannot be reached or
                refuses it.
        """
        stored = self.stored()
        counted = self.budget()
        if self.is_sharded and torch.distributed.get_rank() != 0:
            return None
        base = _shared_name(stored.base.name, base_model)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            header = {**adapter_files.header_of(stored), "base_model_name_or_path": base}
            adapter_files.write_files(folder, adapter_files.tensors_of(stored), header)
            if not has_file(repo_id, CARD_FILE, token, revision):
                (folder / CARD_FILE).write_text(_card(repo_id, base, header, counted), encoding="utf-8")
            return pushed(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )


def _shared_name(name: str | None, given: str | None) -> str | None:
    """The base's name in the files: a path of this machine is of no use to others."""
    chosen = given or name
    if chosen is not None and not is_hub_model(chosen):
        raise AdapterError(
            f"push_to_hub(): the base {chosen} is a folder here, which nobody else has; give its name on the hub, "
            "base_model='<owner>/<name>'"
        )
    return chosen


def _card(repo_id: str, base: str | None, header: dict[str, Any], counted: "Budget") -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(base_model=base, library_name="neuroada", tags=["neuroada"])
    if base is not None:
        data["base_model_relation"] = "adapter"
    title = repo_id.rpartition("/")[2]
    of_base = "" if base is None else f" of [{base}](https://huggingface.co/{base})"
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {title}\n\nA NeuroAda adapter{of_base}: {counted.trainable:,} trained values "
        f"({counted.percent:.3g} % of {counted.total:,} parameters), k={header['top_k']}.\n\n"
        + _LOADED.format(base=base or "<the base>", repo=repo_id)
    )
