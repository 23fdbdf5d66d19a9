"""The modules of the base model, and the checks that an adapter's file has what its config states."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import entries
from minitx.architectures.operations import Transposed
from minitx.checkpoint.files import Tensors, summarize
from minitx.checkpoint.lora.adapter import Adapter
from minitx.config import ModelConfig

_LEAVES = ("", ".weight", ".bias")


@dataclass(frozen=True)
class Modules:
    """The modules that an adapter of a task can change, by their names in the checkpoint.

    Attributes:
        aliases_of: name of a module, without the prefix -> all names of it; a file has one, or equal tensors.
        heads: names of those in the head of the task.
        embeddings: names of the word embeddings and of the head that is tied to them.
        transposed: names of modules whose weights are stored as (inputs, outputs).
        known: names of all modules, those of other heads included.
        prefix: of the base model's names in a checkpoint with a head.
        base: tensors of the base model.
    """

    aliases_of: Mapping[str, tuple[str, ...]]
    heads: frozenset[str]
    embeddings: frozenset[str]
    transposed: frozenset[str]
    known: frozenset[str]
    prefix: str
    base: Tensors

    @classmethod
    def of(
        cls, architecture: Architecture, model_config: ModelConfig, task: str | None, base: Tensors
    ) -> Modules:
        """Returns the modules of a base model.

        Args:
            architecture, model_config: of the base model.
            task: that the adapter was trained for; None without a head.
            base: tensors of the base model.
        """
        layers = architecture.layers(model_config)
        network = list(entries(architecture.weights, layers))
        head = list(entries(architecture.head_weights.get(task or "", {}), layers))
        tables = [entries(table, layers) for table in architecture.head_weights.values()]
        everything = [*network, *(entry for table in tables for entry in table)]
        pooler = task in architecture.tasks_with_pooler
        used = [entry for entry in network if pooler or not entry[0][0].startswith("pooler")] + head
        groups = [[(name,) for name in e.names] if e.op.many else [e.names] for _, e in used]
        words = [e for left, e in network if left[0].endswith("embedder.word_emb")]
        words += [e for _, e in head] if task in ("causal-lm", "seq2seq-lm") else []
        return cls(
            {name: names for group in groups for names in group for name in names},
            frozenset(name for _, e in head for name in e.names),
            frozenset(name for e in words for name in e.names),
            frozenset(name for _, e in everything if isinstance(e.op, Transposed) for name in e.names),
            frozenset(name for _, e in everything for name in e.names),
            architecture.prefix,
            base,
        )

    def bare(self, name: str) -> str:
        """Returns a name without the prefix."""
        return name.removeprefix(self.prefix)

    def aliases(self, name: str) -> list[str]:
        """Returns the names of the same tensor, without the prefix."""
        name = self.bare(name)
        for leaf in _LEAVES:
            names = self.aliases_of.get(name.removesuffix(leaf), ()) if name.endswith(leaf) else ()
            if names:
                return [alias + leaf for alias in names]
        return [name]

    def stored(self, name: str) -> list[str]:
        """Returns the names of a tensor in the base model's file."""
        spellings = [spelling for alias in self.aliases(name) for spelling in (alias, self.prefix + alias)]
        return [spelling for spelling in dict.fromkeys(spellings) if spelling in self.base.shapes]

    def is_known(self, module: str) -> bool:
        """Whether the architecture has a module of this name."""
        return self.bare(module) in self.known

    def is_transposed(self, module: str) -> bool:
        """Whether a module's weight is stored as (inputs, outputs)."""
        return self.bare(module) in self.transposed

    def may_be_resized(self, name: str) -> bool:
        """Whether a tensor may have another number of rows than that of the base model."""
        module = self.bare(name).rpartition(".")[0]
        return module in self.heads or module in self.embeddings

    def parameters(self) -> Iterator[list[str]]:
        """Yields the names of each tensor that the base model stores, and of the weights of the head."""
        for names in dict.fromkeys(self.aliases_of.values()):
            for leaf in _LEAVES:
                if self.stored(names[0] + leaf) or (names[0] in self.heads and leaf == ".weight"):
                    yield [name + leaf for name in names]


def check_stated(
    adapter: Adapter, modules: Modules, updates: Collection[str], whole: Collection[str]
) -> None:
    """Checks that the config states every whole tensor: as saved, as a trained bias or as an embedding.

    Raises:
        ValueError: some are not stated.
    """
    bias = adapter.config.get("bias", "none")

    def _is_stated(name: str) -> bool:
        module = name.rpartition(".")[0]
        trained = name.endswith(".bias") and module in updates if bias == "lora_only" else "bias" in name
        if bias != "none" and trained:
            return True
        return adapter.is_saved(module or name) or modules.bare(module) in modules.embeddings

    if other := sorted(name for name in whole if not _is_stated(name)):
        raise ValueError(
            f"{adapter.path}: the file holds {summarize(other)}, which neither modules_to_save nor bias "
            "states; merge it with PEFT first."
        )


def check_complete(
    adapter: Adapter, modules: Modules, updates: Collection[str], whole: Collection[str]
) -> None:
    """Checks that the file has a tensor for each module that the config states.

    Raises:
        ValueError: some are missing.
    """
    adapted = {alias for module in updates for alias in modules.aliases(module)}
    present = {alias for name in whole for alias in modules.aliases(name)}
    prefixed = any(name.startswith(modules.prefix) for name in (*updates, *whole))
    missing: dict[str, list[str]] = {}
    for names in modules.parameters():
        in_head = names[0].rpartition(".")[0] in modules.heads
        paths = [name if in_head or not prefixed else modules.prefix + name for name in names]
        setting = stating_setting(adapter, modules, paths, adapted)
        done = present if setting != "target_modules" else {f"{module}.weight" for module in adapted}
        if setting and not {*names} & done:
            missing.setdefault(setting, []).append(paths[0])
    for setting, names in missing.items():
        raise adapter.error(
            setting, f"states tensors that the adapter's file lacks: {summarize(names)}", "fetch it again"
        )


def stating_setting(
    adapter: Adapter, modules: Modules, paths: Iterable[str], adapted: Collection[str]
) -> str | None:
    """Returns the setting that asks for a tensor with one of these paths; None without one."""
    targets = adapter.config.get("target_modules")
    for path in paths:
        module, _, leaf = path.rpartition(".")
        saved = adapter.config.get("modules_to_save") and adapter.is_saved(module)
        if saved:
            return "modules_to_save"
        bias = adapter.config.get("bias", "none")
        if (bias == "all" and "bias" in path) or (
            bias == "lora_only" and leaf == "bias" and modules.bare(module) in adapted
        ):
            return "bias"
        if leaf != "weight" or targets in (None, "all-linear") or ".experts." in module:
            continue
        stored = modules.stored(path)
        if stored and modules.base.shapes[stored[0]].dim() == 2 and adapter.is_target(module):
            return "target_modules"
    return None
