"""What the schema of the budget repeats because its source would import torch."""

from neuroada.config import budget_schema
from neuroada.sparse import config


def test_connections_compete_in_the_same_parts_as_in_python() -> None:
    assert budget_schema.SPREADS == config.SPREADS
