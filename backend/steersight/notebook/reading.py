"""What a run has so far, as arrays and frames.

Called in the loop in which the run is changed, so that nothing moves meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..client import Run, SteersightError
from .arrays import Rows
from .missing import needed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rows_of(run: Run, metric: str | None) -> Rows:
    """One metric of a run.

    Args:
        metric: its id, or the name under which a block of the run emits it; None where the run has one only.

    Raises SteersightError for one that the run is not watched with.
    """
    column = _column(run, metric)
    values = run.rows()[:, column]
    name = run.metrics[column]
    info = run.told.metrics.get(name)
    coords = {"positions": np.arange(values.shape[0]), "layers": np.arange(values.shape[1])}
    return Rows(values, ("positions", "layers"), coords, name, info.unit if info else "")


def parts_of(run: Run) -> NDArray[np.object_]:
    """[prompt + reply tokens]: `prompt`, `thought` or `answer`."""
    split = len(run.prompt.ids)
    parts = np.full(split + len(run.ids), "answer", dtype=object)
    if "thought" in run.parts:
        parts[split : run.parts.get("answer", len(parts))] = "thought"
    parts[:split] = "prompt"
    return parts


def frame_of(run: Run, metrics: Sequence[str] | None) -> Any:
    """A pandas DataFrame of all rows: position, token, text, part, revision, layer, metric, value; one line
    for each number, and none for what is not known.

    Args:
        metrics: as in `rows_of`; None is all that the run is watched with.

    Raises SteersightError for one that it is not watched with, ImportError with a sentence without pandas.
    """
    pandas = needed("pandas", "A frame")
    columns = (
        [_column(run, name) for name in metrics] if metrics is not None else list(range(len(run.metrics)))
    )
    values = run.rows()[:, columns]
    ids = np.array([*run.prompt.ids, *run.ids], dtype=np.int64)
    texts = np.array([*run.prompt.texts, *run.pieces], dtype=object)
    revisions = np.array([run.revs.get(position, -1) for position in range(len(ids))], dtype=np.int64)
    position, metric, layer = np.nonzero(~np.isnan(values))
    names = [run.metrics[column] for column in columns]
    return pandas.DataFrame(
        {
            "position": position,
            "token": ids[position],
            "text": texts[position],
            "part": pandas.Categorical(parts_of(run)[position], ["prompt", "thought", "answer"]),
            "revision": revisions[position],
            "layer": layer,
            "metric": pandas.Categorical.from_codes(metric, names),
            "value": values[position, metric, layer],
        }
    )


def _column(run: Run, metric: str | None) -> int:
    if metric is None and len(run.metrics) == 1:
        return 0
    if metric is not None:
        metric = run.metric_id(metric)
    if metric not in run.metrics:
        which = "Say which metric" if metric is None else f"This run is not watched with {metric!r}"
        raise SteersightError("invalid", f"{which}: it has {', '.join(run.metrics) or 'none'}.", "metrics")
    return run.metrics.index(metric)
