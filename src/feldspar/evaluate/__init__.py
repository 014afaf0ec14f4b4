"""Held-out loss, bits per byte, baselines, and the adapter to lm-eval."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "EvaluationSettings": "settings",
        "HeldOutSource": "validation",
        "held_out_sources": "validation",
        "validate": "validation",
        "TextModel": "text_model",
        "open_exported": "exported",
        "DocumentLoss": "text_loss",
        "document_losses": "text_loss",
        "total_loss": "text_loss",
        "text_files": "documents",
        "text_losses": "documents",
        "HeldOutLoss": "held_out",
        "evaluate_shards": "held_out",
        "held_out_documents": "held_out",
        "InfillingScore": "infilling",
        "evaluate_infilling": "infilling",
        "TokenTrigram": "trigram",
        "compression_baselines": "compression",
        "held_out_baselines": "baselines",
        "Continuation": "continuations",
        "Score": "continuations",
        "score_continuations": "continuations",
        "GuessingScore": "guessing",
        "guessing_score": "guessing",
        "lm_eval_model": "lm_eval_adapter",
        "run_lm_eval": "lm_eval_adapter",
        "write_cloze_task": "tasks",
    },
)
