"""Files of adapters with one thing wrong: each is refused in one line, or loads as exactly what its tensors say.

In both cases the base is the same afterwards, bit for bit: at once after a refusal, and when a loaded adapter is taken
off again.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

import neuroada
from neuroada.config.errors import UserError
from neuroada.methods.masked import MaskedWeights
from neuroada.methods.saved import open_saved
from neuroada.methods.trained_weights import TrainedWeights
from neuroada.sparse.errors import AdapterError

HEADER, TENSORS = "adapter_config.json", "adapter_model.safetensors"
Files = dict[str, bytes]
Fuzz = Callable[[Files, Random], Files]

DTYPES = [
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.bool),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 4, -1, 1.5, 10**400, float("nan"), float("inf"), "", "x", "1", "\ud800", "[/b]"),
    *([], {}, [[]], [None], ["fc"], ["gate", "fc"], {"a": 1}, "all-linear", "(", "../../x", ["head"], "magnitude"),
    json.loads("[" * 200 + "]" * 200),
]
ODD_NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e38, 0.0, -0.0)


class Tiny(nn.Module):
    """Two layers and a norm, the same ones each time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4)
        self.gate = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for part in self.parameters():
                part.copy_(torch.randn(part.shape, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.gate(self.fc(inputs)))


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: part.numpy().tobytes() for name, part in model.state_dict().items() if "bypass" not in name}


# What goes wrong


def other_bytes(files: Files, random: Random) -> Files:
    name = random.choice([HEADER, TENSORS])
    content = bytearray(files[name])
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        content[random.randrange(len(content))] = random.randrange(256)
    return {**files, name: bytes(content)}


def other_length(files: Files, random: Random) -> Files:
    name = random.choice([HEADER, TENSORS])
    content, place = files[name], random.randrange(len(files[name]) + 1)
    added = random.randbytes(random.choice([1, 8, 100]))
    changed = random.choice([content[:place], content[:place] + added + content[place:], content[place:], b""])
    return {**files, name: changed}


def other_tensors(files: Files, random: Random) -> Files:
    tensors = load(files[TENSORS])
    name = random.choice(sorted(tensors))
    change = random.choice([_dropped, _renamed, _of_another, _reshaped, _recast, _renumbered, _cut])
    return {**files, TENSORS: save(change(tensors, name, random))}


def other_header(files: Files, random: Random) -> Files:
    header = json.loads(files[HEADER])
    key = random.choice([*sorted(header), "another", "layers", "alpha_pattern", "modules_to_save", "megatron_config"])
    if random.random() < 0.2:
        header.pop(key, None)
    else:
        header[key] = random.choice(VALUES)
    return {**files, HEADER: json.dumps(header).encode()}


def other_json(files: Files, random: Random) -> Files:
    deep = b"[" * 100_000
    return {
        **files,
        HEADER: random.choice([json.dumps(random.choice(VALUES)).encode(), deep, b"\xff", b"{}{}", b"NaN"]),
    }


FUZZES: list[Fuzz] = [other_bytes, other_length, other_tensors, other_tensors, other_header, other_header, other_json]


def _dropped(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    layer = name.rpartition(".")[0]
    whole_layer = random.random() < 0.5
    return {key: part for key, part in tensors.items() if key != name and not (whole_layer and key.startswith(layer))}


def _renamed(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    new = random.choice(
        [f"{name}x", name.replace("fc", "gate"), name.replace("gate", "fc"), name.upper(), "values", ""]
    )
    return {(new if key == name else key): part for key, part in tensors.items()}


def _of_another(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    return {**tensors, name: tensors[random.choice(sorted(tensors))].clone()}


def _reshaped(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    part = tensors[name]
    shapes = [part.flatten(), part.unsqueeze(0), part[:0], part.sum(), part.T if part.dim() == 2 else part]
    return {**tensors, name: random.choice(shapes).clone().contiguous()}


def _recast(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    return {**tensors, name: tensors[name].to(random.choice(DTYPES))}


def _renumbered(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    part = tensors[name].clone()
    if part.numel():
        odd = random.choice(ODD_NUMBERS) if part.is_floating_point() else random.choice([-1, 0, 1, 4, 5, 127])
        part.view(-1)[random.randrange(part.numel())] = odd
    return {**tensors, name: part}


def _cut(tensors: dict[str, Tensor], name: str, random: Random) -> dict[str, Tensor]:
    part = tensors[name]
    axis = random.randrange(part.dim()) if part.dim() else 0
    if not part.numel():
        return tensors
    return {**tensors, name: part.narrow(axis, 0, max(part.shape[axis] - 1, 0)).clone()}


# What must hold


def expected_weights(base: dict[str, Tensor], content: bytes) -> dict[str, Tensor]:
    """The weights by the tensors alone, computed without the package."""
    tensors, weights = load(content), {name: part.clone() for name, part in base.items()}
    for name, part in tensors.items():
        name = name.removeprefix("modules_to_save.")
        layer, _, kind = name.rpartition(".")
        if kind == "values":
            weight_OI, columns_OK = weights[f"{layer}.weight"], tensors[f"{layer}.columns"].long()
            weight_OI.scatter_(1, columns_OK, weight_OI.gather(1, columns_OK) + part.float())
        elif kind == "entries":
            weights[f"{layer}.weight"].scatter_(1, tensors[f"{layer}.columns"].long(), part.float())
        elif name in weights:
            weights[name] = part.float()
    return weights


def outcome(folder: Path, model: nn.Module, is_peft: bool) -> str:
    """``refused``, ``loaded``, or what is wrong."""
    before, base = bits(model), {name: part.clone() for name, part in model.state_dict().items()}
    try:
        trained = open_saved(folder).attach(model)
    except (UserError, AdapterError) as error:
        unchanged = bits(model) == before and all(part.requires_grad for part in model.parameters())
        return _refused(str(error), unchanged)
    except Exception as error:  # what a user would see as a trace
        return f"{type(error).__name__}: {error}"
    if not is_peft:
        present = model.state_dict()
        for name, expected in expected_weights(base, (folder / TENSORS).read_bytes()).items():
            if not torch.equal(present[name], expected):
                return f"{name} is not what the tensors say"
    trained.detach()
    return "loaded" if bits(model) == before else "detach left another base"


def _refused(message: str, unchanged: bool) -> str:
    if len(message.splitlines()) != 1:
        return f"refused in several lines: {message!r}"
    return "refused" if unchanged else f"refused, but the base has changed: {message}"


def attack(saved: Path, num_cases: int, folder: Path, is_peft: bool = False) -> Counter[str]:
    """Outcome -> number of cases."""
    whole = {name: (saved / name).read_bytes() for name in (HEADER, TENSORS)}
    assert outcome(saved, Tiny(), is_peft) == "loaded"
    counts: Counter[str] = Counter()
    folder.mkdir(parents=True)
    model = Tiny()
    for number in range(num_cases):
        random = Random(number)
        for name, content in random.choice(FUZZES)(whole, random).items():
            (folder / name).write_bytes(content)
        found = outcome(folder, model, is_peft)
        counts[found if found in ("refused", "loaded") else f"case {number}: {found[:300]}"] += 1
        if found not in ("refused", "loaded"):
            model = Tiny()
    return counts


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a place: a case writes two files."""
    memory = Path("/dev/shm")
    place = memory / tmp_path.name if memory.is_dir() else tmp_path / "fuzzed"
    yield place
    shutil.rmtree(place, ignore_errors=True)


def save_neuroada(folder: Path) -> None:
    adapter = neuroada.attach(Tiny(), neuroada.NeuroAdaConfig(2, ["fc", "gate"]))
    _fill(adapter.parameters())
    adapter.save(folder)


def save_whole(folder: Path) -> None:
    adapter = neuroada.attach(Tiny(), neuroada.NeuroAdaConfig(2, ["fc"], modules_to_save=["gate"]))
    _fill(adapter.parameters())
    adapter.save(folder)


def save_masked(folder: Path) -> None:
    model = Tiny()
    columns = {"fc": torch.tensor([[0, 3]] * 4), "gate": torch.tensor([[1, 2]] * 3)}
    trained = MaskedWeights("masked", model, columns)
    trained.load_state({**trained.state(), "fc.entries": torch.ones(4, 2)})
    trained.save(folder)


def save_full(folder: Path) -> None:
    model = Tiny()
    trained = TrainedWeights("full", model, [name for name, _ in model.named_parameters()])
    _fill(trained.parameters())
    trained.save(folder)


def save_norms(folder: Path) -> None:
    trained = TrainedWeights("layernorm", Tiny(), ["norm.weight", "norm.bias"])
    _fill(trained.parameters())
    trained.save(folder)


def _fill(parameters: Iterator[nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in parameters:
            part.copy_(torch.randn(part.shape, generator=generator))


OURS = {
    "neuroada": (save_neuroada, 60_000),
    "modules_to_save": (save_whole, 10_000),
    "masked": (save_masked, 20_000),
    "full": (save_full, 10_000),
    "layernorm": (save_norms, 10_000),
}


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", OURS)
def test_files_of_ours(method: str, tmp_path: Path, fast_folder: Path, tally: Callable[..., None]) -> None:
    save_it, num_cases = OURS[method]
    save_it(tmp_path / "saved")
    counts = attack(tmp_path / "saved", num_cases, fast_folder)
    held = counts["refused"] + counts["loaded"]
    tally(
        promise="A damaged adapter is refused in one line, or is what its tensors say; the base stays exact.",
        attack=f"{method} files with one thing wrong: bytes, lengths, tensors, shapes, dtypes, settings",
        held=held,
        of=num_cases,
    )
    assert counts["loaded"] > 0
    assert counts["refused"] > 0
    assert held == num_cases, counts.most_common(8)


PEFTS = {
    "lora": lambda: peft.LoraConfig(target_modules=["fc", "gate"], r=2),
    "dora": lambda: peft.LoraConfig(target_modules=["fc"], r=2, use_dora=True, modules_to_save=["norm"]),
    "ia3": lambda: peft.IA3Config(target_modules=["fc", "gate"], feedforward_modules=["gate"]),
    "vera": lambda: peft.VeraConfig(target_modules=["fc"], r=2),
}
_NUM_PEFT = 2_500


def save_peft(method: str, folder: Path) -> None:
    model = peft.get_peft_model(Tiny(), PEFTS[method]())
    _fill(part for part in model.parameters() if part.requires_grad)
    model.save_pretrained(str(folder))


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", PEFTS)
@pytest.mark.filterwarnings("ignore")
def test_files_of_peft(method: str, tmp_path: Path, fast_folder: Path, tally: Callable[..., None]) -> None:
    save_peft(method, tmp_path / "saved")
    counts = attack(tmp_path / "saved", _NUM_PEFT, fast_folder, is_peft=True)
    held = counts["refused"] + counts["loaded"]
    tally(
        promise="A damaged adapter of the peft library is refused in one line, or comes off and leaves the base exact.",
        attack=f"{method} files with one thing wrong: bytes, lengths, tensors, shapes, dtypes, settings",
        held=held,
        of=_NUM_PEFT,
    )
    assert counts["refused"] > 0
    assert held == _NUM_PEFT, counts.most_common(8)
