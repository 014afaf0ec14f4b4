"""The plan of a recipe before training: parameters, steps, FLOPs, and a row for each phase."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.rows import ModelShapes, ParameterRow, Role
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_class import ExportClass, export_class
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.plan.dense_comparison import compare_with_dense
from feldspar.plan.flops import phase_ledger, training_flops
from feldspar.plan.inference import Inference, plan_inference
from feldspar.plan.masked_products import possible_products
from feldspar.plan.memory import (
    Machine,
    Memory,
    device_count,
    drift_warnings,
    phase_memories,
    plan_memory,
)
from feldspar.plan.moving_masks import (
    dense_gradient_flops,
    density_warning,
    mask_schedule,
    mean_kept,
    moves_record,
)
from feldspar.plan.noise_scale import (
    calibration_warnings,
    check_noise_scale,
    require_processes_to_compare,
)
from feldspar.plan.products import needed_products
from feldspar.plan.sources import data_record, data_warnings
from feldspar.plan.time import Speed, time_record
from feldspar.plan.timeline import Timeline, build_timeline
from feldspar.plan.trained import held_shapes, lora_rows, trained_parts, trained_rows
from feldspar.plan.validation import Validation, plan_validation
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.optimizer import LanguageOptimizer
from feldspar.recipe.sections.sparsity import (
    Dense,
    GradualSparsity,
    MovingSettings,
    RigLSparsity,
)
from feldspar.recipe.sections.start_from import StartFromRun
from feldspar.sparsity.density import densities, kept_counts, low_fan_in_warning
from feldspar.sparsity.schedule import MaskSchedule
from feldspar.tokens.sequences.resolve import MeasuredTokens

ONE_DEVICE = Machine()
"""The default machine: a processor, unless the recipe says cuda."""


@dataclass(frozen=True)
class Plan:
    """A recipe's shapes, timeline and parametrization table."""

    recipe: Recipe
    shapes: ModelShapes
    timeline: Timeline
    tables: tuple[ParametrizationTable, ...]
    """A parametrization table for each phase. Its multipliers follow the phase's density."""
    mask_schedules: tuple[MaskSchedule | None, ...]
    """The moves of each phase's masks. None: they do not move."""
    trained: tuple[tuple[ParameterRow, ...], ...]
    """The rows of the parameters that each phase trains."""
    source_tokens: Mapping[str, int | None]
    """Tokens of each source of the corpus, where known."""

    @property
    def table(self) -> ParametrizationTable:
        """The first phase's table, which decides the initial values."""
        return self.tables[0]

    @property
    def export_class(self) -> ExportClass:
        """The class of transformers that the model is exported as after its last phase."""
        recipe = self.recipe
        scaling = recipe.position_scaling(len(recipe.phases) - 1)
        return export_class(ModelDescription(recipe.model, recipe.parametrization, scaling))

    @property
    def warnings(self) -> list[str]:
        """Warnings: settings that are allowed, but that the user should know about. A line each."""
        found = list(self.recipe.parametrization.warnings)
        continues = isinstance(self.recipe.start_from, StartFromRun)
        if continues and self.recipe.sparsity(0) == Dense() and not self.recipe.phases[0].sparsity:
            found.append(
                "phases.0.sparsity: not set, so that masks of the run that start_from names stay; "
                "this plan, which does not read it, counts as if it had none"
            )
        for index, phase in enumerate(self.recipe.phases):
            if index == 0 or phase.sparsity is not None:
                key = f"phases.{index}.sparsity"
                line = low_fan_in_warning(self.recipe.sparsity(index), self.shapes.rows, key)
                late = density_warning(self.recipe, index)
                found += [each for each in (line, late) if each is not None]
        return found

    @property
    def validation(self) -> Validation:
        """The amount of text that each validation during training measures."""
        holdout = self.recipe.evaluation.holdout
        n_sources = len(self.source_tokens if holdout == "all" else holdout) or None
        return plan_validation(self.recipe, self.shapes, self.timeline, n_sources)

    def active_parameters(self, phase_index: int) -> int:
        """Return the number of a phase's parameters without masked entries."""
        kept = self._kept(phase_index)
        return sum(kept.get(row.name, row.count) for row in self.shapes.rows)

    def trainable_parameters(self, phase_index: int) -> int:
        """Return the number of entries that a phase may change; masked entries count."""
        parts = trained_parts(self.recipe, self.trained[phase_index], phase_index)
        return sum(row.count for row in parts)

    def _kept(self, phase_index: int) -> dict[str, int]:
        return kept_counts(self.recipe.sparsity(phase_index), self.shapes.rows)

    def flops(self) -> dict[str, float]:
        """Return the training FLOPs of the run by convention."""
        trained = [
            None if settings.lora is None else rows
            for settings, rows in zip(self.recipe.phases, self.trained, strict=True)
        ]
        return training_flops(self.recipe.model, self.shapes, self.timeline, trained)

    def _ledger(self, index: int) -> dict[str, float]:
        recipe, trained = self.recipe, self.trained[index]
        lora, rows = recipe.phases[index].lora, self.shapes.rows
        products = None
        if lora is not None or len(trained) < len(rows):
            names = frozenset(row.name for row in trained)
            products = needed_products(recipe.model, lora, names)
        if lora is not None:
            rows = held_shapes(recipe).rows
        phase, kept = self.timeline.phases[index], self._mean_kept(index)
        added = self._dense_gradients(index)
        return phase_ledger(recipe.model, rows, phase, kept, products, added)

    def _mean_kept(self, index: int) -> Mapping[str, float]:
        """Return the kept entries of each masked matrix, averaged over a phase."""
        settings, schedule = self.recipe.sparsity(index), self.mask_schedules[index]
        if schedule is None or not isinstance(settings, GradualSparsity):
            return self._kept(index)
        phase, trained = self.timeline.phases[index], {row.name for row in self.trained[index]}
        return mean_kept(settings, self.shapes.rows, trained, phase, schedule)

    def _dense_gradients(self, index: int) -> float:
        """Return the FLOPs of gradients of masked entries in a phase."""
        settings, schedule = self.recipe.sparsity(index), self.mask_schedules[index]
        if schedule is None or not isinstance(settings, RigLSparsity):
            return 0.0
        phase, trained = self.timeline.phases[index], {row.name for row in self.trained[index]}
        return dense_gradient_flops(self.shapes.rows, self._kept(index), trained, phase, schedule)

    def inference(self) -> Inference:
        """Return the cost of generating text, at the context of the last phase."""
        last = len(self.timeline.phases) - 1
        context = self.timeline.phases[last].context_length
        return plan_inference(self.recipe.model, self.shapes.rows, context, self._kept(last))

    def memory(self, machine: Machine = ONE_DEVICE) -> Memory:
        """Return the memory on a device of ``machine``. Raises the errors of ``plan_memory``."""
        return plan_memory(self.recipe, self.timeline, machine)

    def summary(self, machine: Machine = ONE_DEVICE, speed: Speed | None = None) -> dict[str, Any]:
        """Return the whole plan as plain values.

        ``time`` is None without a ``speed``. Raises UserError where the recipe does not fit the
        machine or its own sources.
        """
        recipe, shapes, timeline = self.recipe, self.shapes, self.timeline
        memory = self.memory(machine)
        require_processes_to_compare(recipe, memory.devices)
        data = data_record(recipe, timeline, self.source_tokens)
        hours = None
        if speed is not None:
            hours = time_record(recipe, shapes, timeline, speed, device_count(recipe, machine))
        phases = [self._phase(index, machine) for index in range(len(self.timeline.phases))]
        active = self.active_parameters(0)
        sparse = {"active": active} if active < self.shapes.parameters else {}
        return {
            "name": self.recipe.name,
            "parameters": {
                "total": self.shapes.parameters,
                "non_embedding": non_embedding_parameters(self.shapes),
                **sparse,
            },
            "tokens": self.timeline.length,
            "steps": self.timeline.steps,
            "fewest_steps": self.timeline.fewest_steps,
            "warmup_steps": self.timeline.warmup_steps,
            "flops": self.flops() | {"ledger": sum(phase["ledger"]["total"] for phase in phases)},
            "phases": phases,
            "memory": memory.record(machine),
            "time": hours,
            "data": data,
            "validation": self.validation.record(),
            "export": self.export_class.record(),
            "warnings": [
                *self.warnings,
                *memory.warnings(machine),
                *drift_warnings(recipe, machine.multiplies_bfloat16(recipe.runtime)),
                *calibration_warnings(recipe, timeline, phase_memories(recipe, timeline, machine)),
                *data_warnings(recipe, timeline, self.source_tokens, data),
            ],
        }

    def _phase(self, index: int, machine: Machine) -> dict[str, Any]:
        phase = self.timeline.phases[index]
        first = self.timeline.next_step(phase.start_position)
        assert first is not None, "a phase has at least one step"
        steered = phase.steering is not None
        last = phase.largest_sequences if steered else phase.stretches[-1].sequences
        return (
            {
                "name": phase.name,
                "tokens": phase.length,
                "steps": phase.steps,
                "fewest_steps": phase.fewest_steps,
                "sequences": [phase.stretches[0].sequences, last],
                "mean_sequences": None if steered else phase.sequences / phase.steps,
                "context_length": phase.context_length,
                "learning_rate": [first.learning_rate, phase.learning_rate.at(phase.end_position)],
                "weight_decay": [first.weight_decay, phase.weight_decay.at(phase.end_position)],
                "active_parameters": self.active_parameters(index),
                "pairs": self._examples(index, "pairs"),
                **(
                    {"messages": messages}
                    if (messages := self._examples(index, "messages"))
                    else {}
                ),
                "trainable_parameters": self.trainable_parameters(index),
                "ledger": self._ledger(index),
                **self._against_dense(index),
            }
            | self._lora(index)
            | self._moves(index)
            | self._masked_products(index, machine)
        )

    def _moves(self, index: int) -> dict[str, Any]:
        """Describe the moves of a phase's masks, where they move."""
        settings, schedule = self.recipe.sparsity(index), self.mask_schedules[index]
        if schedule is None or not isinstance(settings, MovingSettings):
            return {}
        phase, added = self.timeline.phases[index], self._dense_gradients(index)
        static = self._ledger(index)["total"] - added
        return {"moving_masks": moves_record(settings, phase, schedule, static, added)}

    def _masked_products(self, index: int, machine: Machine) -> dict[str, Any]:
        """Say which masked matrices of a phase may be multiplied sparse."""
        found = possible_products(self.recipe, self.shapes.rows, machine, index)
        return {} if found is None else {"masked_products": found.record()}

    def _against_dense(self, index: int) -> dict[str, Any]:
        """Compare the FLOPs of a Sparse-IFT model with those of its dense model."""
        model, phase = self.recipe.model, self.timeline.phases[index]
        kept, context = self._kept(index), phase.context_length
        found = compare_with_dense(model, self.shapes.rows, context, kept)
        return {} if found is None else {"sparse_iso_flop": found}

    def _lora(self, index: int) -> dict[str, Any]:
        """Describe the updates of a phase with LoRA."""
        settings = self.recipe.phases[index].lora
        if settings is None:
            return {}
        count = sum(row.count for row in lora_rows(self.recipe, index))
        return {"lora": settings.model_dump(mode="json") | {"parameters": count}}

    def _examples(self, index: int, kind: str) -> dict[str, Any] | None:
        """Describe the data of a phase of pairs or messages, with the tokens of a pass (padding
        included) if known.
        """
        settings = self.recipe.phases[index]
        if settings.examples is None or settings.examples.type != kind:
            return None
        measured = self.source_tokens
        tokens = measured.examples.get(index) if isinstance(measured, MeasuredTokens) else None
        tokens = settings.examples.tokens if tokens is None else tokens
        read = self.timeline.phases[index].length
        return {
            "path": str(settings.examples.path),
            "tokens": tokens,
            "epochs": None if tokens is None else read / tokens,
            "soft_prompt_length": settings.soft_prompt_length,
        }


def plan_recipe(recipe: Recipe, source_tokens: Mapping[str, int] | None = None) -> Plan:
    """Plan a recipe. Neither data nor tokenizer nor weights are needed.

    ``source_tokens`` defaults to the sizes that the recipe's sources declare. Raises UserError.
    """
    shapes = model_shapes(recipe.model, recipe.soft_prompt_length)
    sizes = source_tokens if source_tokens is not None else declared_tokens(recipe)
    known = _known_tokens(recipe) if source_tokens is None else source_tokens
    timeline = build_timeline(recipe, shapes.parameters, sizes)
    check_noise_scale(recipe, shapes, timeline)
    held = held_shapes(recipe)
    tables = tuple(
        table(
            recipe.parametrization,
            held,
            densities(recipe.sparsity(index), shapes.rows, f"phases.{index}.sparsity"),
            recipe.optimizer_of(index),
        )
        for index in range(len(recipe.phases))
    )
    indices = range(len(recipe.phases))
    schedules = tuple(mask_schedule(recipe, timeline, index) for index in indices)
    trained = tuple(trained_rows(recipe, shapes.rows, index) for index in indices)
    return Plan(recipe, shapes, timeline, tables, schedules, trained, known)


def declared_tokens(recipe: Recipe) -> dict[str, int] | None:
    """Return the tokens of each source as the recipe declares them; None unless all are
    declared.
    """
    known = _known_tokens(recipe)
    sizes = {name: tokens for name, tokens in known.items() if tokens is not None}
    return sizes if sizes and len(sizes) == len(known) else None


def _known_tokens(recipe: Recipe) -> dict[str, int | None]:
    """Return the tokens of each source of train; None for a source without a declaration."""
    sources = recipe.corpus.training_sources if recipe.corpus is not None else {}
    return {name: source.tokens for name, source in sources.items()}


def non_embedding_parameters(shapes: ModelShapes) -> int:
    """Return parameters without token and position tables, an untied head and a soft prompt."""
    outside = {Role.EMBEDDING, Role.POSITION, Role.OUTPUT, Role.PROMPT}
    return sum(row.count for row in shapes.rows if row.role not in outside)


def effective_table(table: ParametrizationTable, optimizer: LanguageOptimizer) -> dict[str, Any]:
    """Return the parametrization table in effective values at the peak, as plain values.

    Where the optimizer updates parameters by several rules, each tensor names its own.
    """
    several = len({entry.rule.name for entry in table.tensors}) > 1
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
                "epsilon": entry.rule.epsilon * entry.epsilon_multiplier,
            }
            | ({"rule": entry.rule.name} if several else {})
            for entry in table.tensors
        ],
    }
