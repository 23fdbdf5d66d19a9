"""Names of labels: from the data to ids, to the head of a model, and into its saved config.

Labels are checked before a run starts. An index error of a loss names neither the file nor the line, and on a
GPU not even the operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minitx.models import Model
from minitx.training.data.split import place
from minitx.training.objectives.base import IGNORED
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_integer, check_type

Rows = Sequence[Mapping[str, Any]]
Kind = Literal["single", "multiple", "tokens"]


class Encoded(Rows):
    """Records with other fields, from `Labels.encode`.

    Args:
        rows: the records.
        source: the records that they come from, which know their lines.
    """

    def __init__(self, rows: Rows, source: Rows) -> None:
        self.rows, self.source = rows, source

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Returns a record, or the list of a slice."""
        return self.rows[index]

    def where(self, index: int) -> str:
        """Returns file and line of a record."""
        return place(self.source, index)


@dataclass(frozen=True)
class Labels:
    """The labels of a task by name; a name's index is its id.

    Attributes:
        names: the labels, each once.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks the names."""
        check_type("names", self.names, list | tuple, "a list of names")
        object.__setattr__(self, "names", tuple(self.names))
        for name in self.names:
            if not isinstance(name, str) or not name.strip():
                raise ArgumentValueError("names", name, "a text that is not empty")
        if not self.names or len(set(self.names)) < len(self.names):
            raise ArgumentValueError("names", self.names, "at least one name, and each once")

    @classmethod
    def of(cls, *data: Rows, field: str = "label") -> Labels:
        """Returns the labels that occur in records, sorted; numbers by their value.

        Args:
            *data: records with a label, or with a list of labels; pass training and validation data.
            field: field of the label.

        Raises:
            ValueError: a record without the field, or a label that is neither a name nor an integer.
        """
        names = {name for records in data for _, names in _all_names(records, field) for name in names}
        return cls(tuple(sorted(names, key=_order)))

    @classmethod
    def of_model(cls, model: Model) -> Labels:
        """Returns the labels of a model, in the order of its config.

        Raises:
            ValueError: a model without a config of its own.
        """
        if model.checkpoint is None:
            raise ArgumentValueError("model", type(model), "from minitx.load or minitx.from_config")
        names = model.checkpoint.id2label
        return cls(tuple(names[index] for index in sorted(names)))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def label2id(self) -> dict[str, int]:
        """The ids by name."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def id2label(self) -> dict[int, str]:
        """The names by id."""
        return dict(enumerate(self.names))

    def config(self) -> dict[str, Any]:
        """Returns the entries of config.json, for `minitx.from_config(config | labels.config())`."""
        names = {str(index): name for index, name in enumerate(self.names)}
        return {"id2label": names, "label2id": self.label2id}

    def encode(self, records: Rows, *, field: str = "label", kind: Kind = "single") -> Encoded:
        """Replaces the labels of records by the field `labels`, as the heads' losses expect it.

        Args:
            records: the data.
            field: field of the label.
            kind: "single", an id; "multiple", a list of labels becomes 0.0 or 1.0 for each label; "tokens", a
                list with a label for each word of the field `words` becomes a list of ids.

        Raises:
            ValueError: a label that these lack; lists of another length. The message names file and line.
        """
        check_choice("kind", kind, ("single", "multiple", "tokens"))
        ids, rows = self.label2id, []
        for index, names in _all_names(records, field):
            if unknown := next((name for name in names if name not in ids), None):
                expected = f"one of {', '.join(map(repr, self.names))}"
                raise ArgumentValueError(f"{place(records, index)}: {field}", unknown, expected)
            row = records[index]
            is_list = isinstance(row[field], list)
            if is_list is (kind == "single"):
                expected = "one label" if kind == "single" else "a list of labels"
                raise ArgumentTypeError(f"{place(records, index)}: {field}", row[field], expected)
            words = row.get("words", names)
            if kind == "tokens" and len(words) != len(names):
                text = f"{len(names)} labels for {len(words)} words"
                raise ValueError(f"{place(records, index)}: {text}; each word needs one.")
            labels: Any = [ids[name] for name in names]
            if kind == "single":
                (labels,) = labels
            elif kind == "multiple":
                labels = [float(label in labels) for label in range(len(self))]
            rows.append({key: value for key, value in row.items() if key != field} | {"labels": labels})
        return Encoded(rows, records)

    def apply(self, model: Model) -> None:
        """Names the outputs of a model's head, so that `minitx.save` writes them into config.json.

        Raises:
            ValueError: a model without a head, with another number of outputs, or with the same names in
                another order.
        """
        self.check(model)
        assert model.checkpoint is not None
        kept = {key: value for key, value in model.checkpoint.config.items() if key != "num_labels"}
        model.checkpoint.config = kept | self.config()

    def check(self, model: Model) -> None:
        """Checks that these labels fit the head of a model; errors as for `apply`."""
        if model.head is None or model.checkpoint is None:
            hint = 'build or load it with head=, such as head="sequence-classification"'
            raise ArgumentValueError("model", type(model), "one with a head", hint)
        outputs = model.head.config.num_labels
        if outputs != len(self):
            names = ", ".join(self.names)
            hint = f"the labels are {names:.200}: load it with num_labels={len(self)} and init_head=True"
            raise ArgumentValueError(
                "model", type(model), f"one with {len(self)} outputs, not {outputs}", hint
            )
        stated = Labels.of_model(model).names
        if stated != self.names and set(stated) == set(self.names):
            hint = "Labels.of_model(model) has the order of the model"
            raise ArgumentValueError("names", self.names, f"in the order {stated}", hint)


def check_ids(records: Rows, num_labels: int, *, field: str = "labels") -> None:
    """Checks that the labels of records are ids of a head, for data that has ids instead of names.

    Args:
        records: the data.
        num_labels: number of outputs of the head.
        field: field of an id, or of a list of ids; -100 in a list is ignored.

    Raises:
        ArgumentValueError, ArgumentTypeError: a label out of range, or no integer; the message names file and
            line.
    """
    check_integer("num_labels", num_labels, 1)
    for index in range(len(records)):
        value = _value(records, index, field)
        where = f"{place(records, index)}: {field}"
        for label in value if isinstance(value, list) else [value]:
            if not (isinstance(value, list) and label == IGNORED):
                hint = f"the head has {num_labels} outputs"
                check_integer(where, label, 0, num_labels - 1, hint)


def _value(records: Rows, index: int, field: str) -> Any:
    row = records[index]
    if field not in row:
        raise ValueError(f"{place(records, index)}: no field {field!r}; the fields are {', '.join(row)}.")
    return row[field]


def _all_names(records: Rows, field: str) -> Iterable[tuple[int, list[str]]]:
    """Yields the index of each record and the names of its labels."""
    for index in range(len(records)):
        value = _value(records, index, field)
        where = f"{place(records, index)}: {field}"
        yield index, [_name(label, where) for label in (value if isinstance(value, list) else [value])]


def _name(label: Any, where: str) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int):
        return str(label)
    if not isinstance(label, str) or not label.strip():
        hint = "numbers with a fraction are the targets of a regression, which has no labels"
        raise ArgumentTypeError(where, label, "a name or an integer", hint)
    return label.strip()


def _order(name: str) -> tuple[int, str]:
    """Returns the key by which labels are sorted: "9" before "10", and numbers before names."""
    is_number = name.removeprefix("-").isdecimal() and len(name) < 19  # below 2**63
    return (int(name), name) if is_number else (2**63, name)
