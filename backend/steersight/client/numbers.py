"""The numbers of one run as the client has them: rows, guesses and alternatives, by position.

They stay as they came, in half precision: that is a quarter of what fp32 in the metrics' units would take
with Python's overhead, and a recording holds exactly what the server sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..protocol.messages import Alternatives, Lens, Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..recordings.assembling import Guess, Likeliest, Stretch


def to_display(values: NDArray[np.float16], transforms: Sequence[str]) -> NDArray[np.float32]:
    """Undo the transform of each metric: [rows, metrics, layers] half floats -> fp32 in the metric's unit.

    What was transformed in a way that is not known here becomes NaN.
    """
    import numpy as np

    out = values.astype(np.float32)
    for index, transform in enumerate(transforms):
        if transform == "log2":
            out[:, index] = np.exp2(out[:, index])
        elif transform != "linear":
            out[:, index] = np.nan
    return out


class Numbers:
    """What came of one run beside its tokens."""

    def __init__(self, metrics: Sequence[str], transforms: Mapping[str, str], layers: int) -> None:
        """
        Args:
            metrics: of the run's rows, in their order.
            transforms: of each metric that is known; a metric may be gone from the server's list before the
                run's last rows come.
            layers: of the model, as far as that is known before rows come.
        """
        self.metrics: list[str] = []
        """All that rows have, or have had: those that came later behind the others."""
        self.layers = layers
        self.revs: dict[int, int] = {}
        """Position -> revision that computed its row."""
        self.guesses: dict[int, dict[int, list[tuple[str, float]]]] = {}
        self.alternatives: dict[int, list[tuple[int, str, float]]] = {}
        self.names: dict[int, str] = {}
        self._transforms: list[str] = []
        self._expected: list[list[str]] = []
        self._rows: dict[int, tuple[list[str], NDArray[np.float16]]] = {}
        """Position -> its metrics, and [metrics, layers]."""
        self._entropy: dict[int, np.float16] = {}
        self._lens: dict[int, tuple[list[int], NDArray[np.int32], NDArray[np.float16]]] = {}

        self.expect(metrics, transforms)

    def expect(self, metrics: Sequence[str], transforms: Mapping[str, str]) -> None:
        """Rows may have these metrics in this order from now on; others that are on their way come too."""
        self._expected.append(list(metrics))
        for name in metrics:
            if name not in self.metrics:
                self.metrics.append(name)
                self._transforms.append(transforms.get(name, "unknown"))

    def __contains__(self, position: int) -> bool:
        """Whether a position has its row."""
        return position in self._rows

    def rows(self, tokens: int) -> NDArray[np.float32]:
        """[tokens, metrics, layers] fp32 in the metrics' units; NaN where there is no row, or none of the
        metric."""
        import numpy as np

        at = {name: column for column, name in enumerate(self.metrics)}

        out = np.full((tokens, len(self.metrics), self.layers), np.nan, dtype=np.float16)
        for position, (metrics, row) in self._rows.items():
            if position < tokens:
                out[position, [at[name] for name in metrics]] = row
        return to_display(out, self._transforms)

    def entropy(self, tokens: int) -> NDArray[np.float32]:
        """[tokens] nats; NaN where not known."""
        import numpy as np

        out = np.full(tokens, np.nan, dtype=np.float32)
        for position, nats in self._entropy.items():
            if position < tokens:
                out[position] = nats
        return out

    # ------------------------------------------------------------ for a recording

    def stretches(self) -> list[Stretch]:
        """All rows, as they are recorded."""
        import numpy as np

        from ..recordings.assembling import Stretch

        return [
            Stretch(
                position, [self.revs[position]], metrics, row[None],
                np.array([self._entropy[position]], dtype="<f2") if position in self._entropy else None,
            )
            for position, (metrics, row) in self._rows.items()
        ]  # fmt: skip

    def lens(self) -> list[Guess]:
        """All guesses, as they are recorded."""
        return [(position, *found) for position, found in self._lens.items()]

    def likeliest(self) -> list[Likeliest]:
        """All alternatives, as they are recorded."""
        import numpy as np

        return [
            (
                position,
                np.array([token for token, _, _ in found], dtype="<i4"),
                np.array([nats for _, _, nats in found], dtype="<f4"),
            )
            for position, found in self.alternatives.items()
        ]

    @property
    def begun_with(self) -> list[str]:
        """The metrics that its first rows were to have."""
        return self._expected[0]

    def has_entropy(self, end: int) -> bool:
        """Whether any row before position `end` came with one."""
        return any(position < end for position in self._entropy)

    # ------------------------------------------------------------ what frames bring

    def take_rows(self, frame: Rows) -> None:
        """Rows; raises ValueError for a frame that contradicts itself or the run."""
        import numpy as np

        if frame.metrics not in self._expected:
            raise ValueError("the rows are of other metrics than the run's")
        self.layers = frame.layers
        shape = (frame.count, len(frame.metrics), frame.layers)
        values = np.frombuffer(frame.data, dtype="<f2").reshape(shape)
        for offset, rev in zip(range(frame.count), frame.revs, strict=True):
            self._rows[frame.start + offset] = (frame.metrics, values[offset])
            self.revs[frame.start + offset] = rev
        if frame.entropy is not None:
            self._entropy.update(enumerate(np.frombuffer(frame.entropy, dtype="<f2"), start=frame.start))

    def take_lens(self, frame: Lens) -> None:
        """Guesses; raises LookupError or ValueError."""
        import numpy as np

        self.names.update(zip(frame.new_ids, frame.new_texts, strict=True))
        shape = (frame.count, len(frame.layers), frame.top)
        ids = np.frombuffer(frame.ids, dtype="<i4").reshape(shape)
        shares = np.frombuffer(frame.probabilities, dtype="<f2").reshape(shape)
        for row in range(frame.count):
            named, likely = ids[row].tolist(), shares[row].tolist()
            self._lens[frame.start + row] = (frame.layers, ids[row], shares[row])
            self.guesses[frame.start + row] = {
                layer: [(self.names[token], share) for token, share in zip(*pair, strict=True)]
                for layer, *pair in zip(frame.layers, named, likely, strict=True)
            }

    def take_alternatives(self, frame: Alternatives) -> None:
        """Alternatives; raises LookupError or ValueError."""
        import numpy as np

        self.names.update(zip(frame.new_ids, frame.new_texts, strict=True))
        shape = (frame.count, frame.top)
        ids = np.frombuffer(frame.ids, dtype="<i4").reshape(shape).tolist()
        logprobs = np.frombuffer(frame.logprobs, dtype="<f4").reshape(shape).tolist()
        for row in range(frame.count):
            self.alternatives[frame.start + row] = [
                (token, self.names[token], logprob)
                for token, logprob in zip(ids[row], logprobs[row], strict=True)
            ]
