"""The bundled default: a small pretrained Llama and two instruction data sets, and the scripts that created them."""

from pathlib import Path

BUNDLED_DIR = Path(__file__).parent
MODEL_DIR = BUNDLED_DIR / "model"
DATA_DIR = BUNDLED_DIR / "data"
