"""lm-evaluation-harness with adapted models: its command line with ``neuroada`` as an additional model type.

``python -m neuroada.integrations.lm_eval run --model neuroada --model_args adapter=<run folder> --tasks <tasks>``; in
Python, ``register()`` and then ``lm_eval.simple_evaluate(model="neuroada", ...)``. The harness does not support entry
points (0.4.13), so the plain ``lm_eval`` command needs the merged checkpoint of ``job=merge`` instead.
"""

from neuroada.config.errors import UserError, reported_in_one_line

MODEL_TYPE = "neuroada"


def register() -> None:
    """Register the model type with the harness; safe to call again.

    Raises:
        UserError: The harness is not installed.
    """
    try:
        from lm_eval.api.registry import model_registry
    except ImportError as error:
        raise UserError("lm-evaluation-harness is not installed; pip install 'neuroada[lm_eval]'") from error
    if MODEL_TYPE not in model_registry:
        model_registry.register(MODEL_TYPE, target="neuroada.integrations.lm_eval_model:NeuroAdaLM")


def main() -> None:
    """The harness's command line."""
    with reported_in_one_line():
        register()
        from lm_eval.__main__ import cli_evaluate

        try:
            cli_evaluate()
        except ValueError as error:  # what the harness raises over its own options, such as an unknown task
            raise UserError(str(error).strip()) from error


if __name__ == "__main__":
    main()
