"""What cannot be translated: the message and the places that it is made of."""

from pathlib import Path

from flaxnets.swap.twin.problems import Problem, TranslationError


def test_message():
    """One line with every place and the text that stands there."""
    lines = Path(__file__).read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if "HERE" in text)
    problems = [Problem(__file__, line, "no"), Problem("absent.py", 3, "neither")]  # HERE
    error = TranslationError("Net cannot be translated", problems)
    assert error.problems == tuple(problems)
    said = str(error).split("; ")
    assert said[0] == "Net cannot be translated"
    assert said[1].startswith(f"{__file__}:{line}: no: line = 1 + next(")
    assert said[2] == "absent.py:3: neither"
