"""The exact texts that published scores depend on."""

from neuroada.tasks.prompts import COMMONSENSE, MATH, Example

EXAMPLE = Example(index=0, instruction="Is it so?", output="the correct answer is true", answer="true")


def test_commonsense_prompt_is_the_instruction_and_a_newline() -> None:
    assert COMMONSENSE.prompt("Is it so?") == "Is it so?\n"
    assert COMMONSENSE.completion(EXAMPLE) == "the correct answer is true"
    assert COMMONSENSE.max_new_tokens == 32


def test_math_prompt_is_the_alpaca_template_without_input() -> None:
    assert MATH.prompt("How many?") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "How many?\n"
        "\n"
        "### Response:\n"
    )
    assert MATH.completion(Example(0, "How many?", output=" 1 + 1 = 2", answer="2")) == " 1 + 1 = 2"
    assert MATH.max_new_tokens == 512


def test_instructions_are_kept_to_the_letter() -> None:
    assert COMMONSENSE.prompt(" 100% {sure}?\n ") == " 100% {sure}?\n \n"
    assert " 100% {sure}?\n \n\n### Response" in MATH.prompt(" 100% {sure}?\n ")
