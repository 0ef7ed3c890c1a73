"""What a model is asked: few-shot texts for base models, zero-shot chats for tuned ones.

`prompt` decides what a benchmark has in which mode, `layouts` sets a question out, `shots` reads the worked examples
that stand before it, from `examples/`, all written for this project.
"""

from dsmath.evaluation.prompts.prompt import MODES, Prompt, cut, make_prompt, modes_of, stops, supports

__all__ = ["MODES", "Prompt", "cut", "make_prompt", "modes_of", "stops", "supports"]
