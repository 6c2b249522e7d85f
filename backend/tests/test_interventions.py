"""A person's own functions: how a file is read, what a slider of one comes to, and what may be set of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steersight.interventions import InterventionError, SteeringFunction, check_names, load_functions
from steersight.vectors.action import MAX_AT_WORK, Action, TooManyVectorsError, decide, decide_all
from steersight.vectors.store import VectorError

from .banks import steering_vector

LAYERS = 30
HEAD = "from steersight.interventions import intervention\n"
PLAIN = '''
def louder(hidden, context, strength):
    """Louder.

    Makes the stream longer.
    """
    return hidden * (1 + strength)
'''


def write(folder: Path, body: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(HEAD + body)
    return str(path)


def loaded(folder: Path, body: str) -> SteeringFunction:
    (function,) = load_functions([write(folder, body)], LAYERS).values()
    return function


def test_a_function_with_a_docstring_is_a_slider(tmp_path: Path) -> None:
    found = loaded(tmp_path, PLAIN)
    assert (found.id, found.label, found.layers) == ("louder", "Louder", [15])
    assert found.description == "Makes the stream longer."
    assert (found.range, found.suggested, found.per_token) == ((0.0, 1.0), 1.0, False)
    assert found.file.name == "mine.py"
    assert torch.equal(found.call(torch.ones(2, 3), None, 0.5), torch.full((2, 3), 1.5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("docstring", "label", "description"),
    [
        ("Louder", "Louder", "Louder"),
        ("Louder.\n\n    One that is\n    wrapped.\n\n    Two.", "Louder", "One that is wrapped.\n\nTwo."),
        ("Louder\n    As a formula:\n\n        h +\n        s", "Louder", "As a formula:\n\n    h +\n    s"),
        ("\n    Louder\n\n    - one\n    - two\n    ", "Louder", "- one\n- two"),
    ],
)
def test_its_docstring_is_what_people_read(
    tmp_path: Path, docstring: str, label: str, description: str
) -> None:
    body = f'def f(hidden, context, strength):\n    """{docstring}"""\n    return hidden\n'
    found = loaded(tmp_path, body)
    assert (found.label, found.description) == (label, description)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("3", [3]), ("-1", [29]), ("(20, 3, 3)", [3, 20]), ("range(4)", [0, 1, 2, 3]),
        ("'all'", list(range(30))), ("None", [15]),
    ],
)  # fmt: skip
def test_more_may_be_said_of_it(tmp_path: Path, layers: str, expected: list[int]) -> None:
    declared = f'@intervention(layers={layers}, range=(-2, 4), suggested=-1, label="Loud")'
    found = loaded(tmp_path, declared + PLAIN)
    assert (found.layers, found.range, found.suggested, found.label) == (expected, (-2.0, 4.0), -1.0, "Loud")


def test_all_functions_of_all_files_in_their_order_and_no_helpers(tmp_path: Path) -> None:
    body = PLAIN + "from math import dist\ndef _hidden(hidden): ...\ndef scale(x): ...\nclass hidden: ...\n"
    first = write(tmp_path, body + PLAIN.replace("louder", "again"))
    second = write(tmp_path, PLAIN.replace("louder", "last"), "other.py")
    assert list(load_functions([first, second], LAYERS)) == ["louder", "again", "last"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("x = 1\n", r"mine\.py has no public function \(hidden, context, strength\)"),
        ("import nothing_like_this\n", "could not be run: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "could not be run: SystemExit: 3"),
        ("def f(hidden, context, strength): return hidden\n", "'f' has no docstring"),
        ("def f(hidden, ctx, strength):\n '''F'''\n", r"'f' takes \(hidden, ctx, strength\), and one that"),
        ("@intervention()\ndef f(x):\n '''F'''\n", r"'f' takes \(x\), and one that steers"),
        ("def fü(hidden, context, strength):\n '''F'''\n", "needs a name of 1 to 64 letters"),
        ("@intervention(range=(1, 0))" + PLAIN, "offers strengths from 1 to 0"),
        ("@intervention(range=(0, float('inf')))" + PLAIN, "offers strengths from 0 to inf"),
        ("@intervention(suggested=2)" + PLAIN, "suggests 2"),
        ("@intervention(range=3)" + PLAIN, "no number: 3"),
        ("@intervention(layers=30)" + PLAIN, r"after the layers \[30\], and the served model's are 0 to 29"),
        ("@intervention(layers=[])" + PLAIN, r"after the layers \[\]"),
        ("@intervention(layers='some')" + PLAIN, "after the layers 'some'. Give a whole number"),
        ("@intervention(layers=1.5)" + PLAIN, "after the layers 1.5. Give a whole number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, body: str, sentence: str
) -> None:
    with pytest.raises(InterventionError, match=sentence):
        load_functions([write(tmp_path, body)], LAYERS)


def test_what_is_not_there_and_what_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(InterventionError, match=r"There is no Python file /nowhere/mine.py. Correct --inter"):
        load_functions(["/nowhere/mine.py"], LAYERS)
    files = [write(tmp_path, PLAIN), write(tmp_path, PLAIN, "other.py")]
    with pytest.raises(InterventionError, match="both have a function 'louder'"):
        load_functions(files, LAYERS)
    functions = load_functions(files[:1], LAYERS).values()
    check_names(functions, {"joy": 1})
    with pytest.raises(InterventionError, match="a function 'louder', and there is a vector of that name"):
        check_names(functions, {"louder": 1})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (PLAIN.replace("louder", "joy"), "has a function 'joy', and there is a vector of that name"),
        ("@intervention(layers=30)" + PLAIN, "the served model's are 0 to 29"),
    ],
)
def test_a_server_does_not_start_with_what_its_model_cannot_be_steered_by(
    tmp_path: Path, model_dir: str, body: str, sentence: str
) -> None:
    from steersight.engine.errors import StartError
    from steersight.engine.loading import read_model
    from steersight.engine.options import EngineOptions

    options = EngineOptions(
        model=model_dir, data_dir=tmp_path / "data", interventions=(write(tmp_path, body),)
    )
    with pytest.raises(StartError, match=sentence):
        read_model(options, lambda _stage, _progress: None)


# ---------------------------------------------------------------- as a slider of a run


def test_it_acts_where_a_setting_says_and_takes_no_operator(tmp_path: Path) -> None:
    function = loaded(tmp_path, PLAIN)
    action = decide(function, 0.5, {"scope": "reply", "first": 3, "layers": [2, 4]}, 10, LAYERS)
    assert (action.vector, action.strength, action.operator) == ("louder", 0.5, "function")
    assert (action.start, action.end, action.layers, action.is_function) == (9, 12, (2, 4), True)
    thought = decide(function, 0.5, {"scope": "answer", "first": 3}, 10, LAYERS, thinks=True)
    assert (thought.part, thought.first) == ("answer", 3)
    assert Action.from_map(action.to_map()) == action
    for setting in ({"operator": "add"}, {"lo": 0.0}, {"hi": 0.1}):
        with pytest.raises(VectorError, match="Louder is a function of this server"):
            decide(function, 0.5, setting, 10, LAYERS)
    with pytest.raises(VectorError, match="cannot act at layers 0 to 30"):
        decide(function, 0.5, {"layers": [0, 30]}, 10, LAYERS)


def test_it_counts_among_what_is_at_work_and_comes_in_the_order_of_the_sliders(tmp_path: Path) -> None:
    function = loaded(tmp_path, PLAIN)
    vectors = {f"v{n}": steering_vector(f"v{n}", {1: torch.ones(8)}) for n in range(MAX_AT_WORK)}
    sliders = {**vectors, "louder": function}
    found = decide_all({"louder": 1.0, "v0": 0.1}, {}, sliders, 10, LAYERS)
    assert [action.vector for action in found] == ["v0", "louder"]
    assert decide_all({"louder": 0.0}, {}, sliders, 10, LAYERS) == []
    with pytest.raises(TooManyVectorsError):
        decide_all(dict.fromkeys(sliders, 0.1), {}, sliders, 10, LAYERS)


def test_only_what_depends_on_nothing_but_its_token_is_had_in_common(tmp_path: Path) -> None:
    """What the cache of prefixes and the kept rows are known by: `Action.deed`."""
    alone = loaded(tmp_path, PLAIN)
    shared = loaded(tmp_path, "@intervention(per_token=True)" + PLAIN)
    vector = steering_vector("v", {1: torch.ones(8)})

    def deeds(slider: SteeringFunction, strength: float = 0.5) -> object:
        return decide(slider, strength, {}, 10, LAYERS).deed

    assert deeds(shared) == deeds(shared) != deeds(shared, 0.6)
    assert deeds(alone) != deeds(alone)
    assert len({decide(vector, 0.5, {}, 10, LAYERS).serial, shared.serial, alone.serial}) == 3
