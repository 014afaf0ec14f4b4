"""What a recipe will do, before anything is spent: parameters, steps, FLOPs, one row a phase."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.rows import ModelShapes, Role
from feldspar.model.shapes import model_shapes
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.plan.flops import training_flops
from feldspar.plan.timeline import Timeline, build_timeline
from feldspar.recipe.root import Recipe
from feldspar.sparsity.density import densities
from feldspar.train.settings import OptimizerSettings


@dataclass(frozen=True)
class Plan:
    """A recipe's shapes, timeline and parametrization table."""

    recipe: Recipe
    shapes: ModelShapes
    timeline: Timeline
    tables: tuple[ParametrizationTable, ...]
    """One for each phase: multipliers follow its density."""

    @property
    def table(self) -> ParametrizationTable:
        """The first phase's table, which the initial values come from."""
        return self.tables[0]

    def summary(self) -> dict[str, Any]:
        """Parameters, tokens, steps, FLOPs and phases as plain values."""
        return {
            "name": self.recipe.name,
            "parameters": {
                "total": self.shapes.parameters,
                "non_embedding": non_embedding_parameters(self.shapes),
            },
            "tokens": self.timeline.tokens,
            "steps": self.timeline.steps,
            "warmup_steps": self.timeline.warmup_steps,
            "flops": training_flops(self.recipe.model, self.shapes, self.timeline),
            "phases": [self._phase(index) for index in range(len(self.timeline.phases))],
        }

    def _phase(self, index: int) -> dict[str, Any]:
        phase = self.timeline.phases[index]
        first = self.timeline.next_step(phase.start_tokens)
        assert first is not None, "a phase has at least one step"
        sequences = [stretch.sequences for stretch in phase.stretches]
        return {
            "name": phase.name,
            "tokens": phase.tokens,
            "steps": phase.steps,
            "sequences": [sequences[0], sequences[-1]],
            "mean_sequences": phase.sequences / phase.steps,
            "context_length": phase.context_length,
            "learning_rate": [first.learning_rate, phase.learning_rate.at(phase.end_tokens)],
            "weight_decay": [first.weight_decay, phase.weight_decay.at(phase.end_tokens)],
        }


def plan_recipe(recipe: Recipe, source_tokens: Mapping[str, int] | None = None) -> Plan:
    """The plan of a recipe; needs neither data nor tokenizer nor weights.

    ``source_tokens`` defaults to the sizes that the recipe's sources declare. Raises UserError.
    """
    shapes = model_shapes(recipe.model)
    sizes = source_tokens if source_tokens is not None else declared_tokens(recipe)
    timeline = build_timeline(recipe, shapes.parameters, sizes)
    tables = tuple(
        table(recipe.parametrization, shapes, densities(recipe.sparsity(index), shapes.rows))
        for index in range(len(recipe.phases))
    )
    return Plan(recipe, shapes, timeline, tables)


def declared_tokens(recipe: Recipe) -> dict[str, int] | None:
    """Tokens of each source as the recipe declares them; None unless every source does."""
    sources = recipe.corpus.sources if recipe.corpus is not None else {}
    sizes = {name: source.tokens for name, source in sources.items() if source.tokens is not None}
    return sizes if sizes and len(sizes) == len(sources) else None


def non_embedding_parameters(shapes: ModelShapes) -> int:
    """Parameters without the token and position tables and an untied head."""
    outside = {Role.EMBEDDING, Role.POSITION, Role.OUTPUT}
    return sum(row.count for row in shapes.rows if row.role not in outside)


def effective_table(table: ParametrizationTable, optimizer: OptimizerSettings) -> dict[str, Any]:
    """The table in effective values at the peak, as plain values."""
    return {
        "type": table.type,
        "forward": asdict(table.forward),
        "tensors": [
            {
                "name": entry.name,
                "role": entry.role.value,
                "shape": list(entry.shape),
                "density": entry.density,
                "init_std": entry.init_std,
                "learning_rate": table.learning_rate * entry.learning_rate_multiplier,
                "weight_decay": optimizer.weight_decay * entry.weight_decay_multiplier,
                "epsilon": optimizer.epsilon * entry.epsilon_multiplier,
            }
            for entry in table.tensors
        ],
    }
