"""The templates of pairs that come with the package, by name.

Records of PubMedQA have other field names and lists (``QUESTION``, ``CONTEXTS``,
``final_decision``): a template of one's own may name them, or a line of any script renames them.
"""

from typing import Any

HALLMARKS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)

TEMPLATES: dict[str, dict[str, Any]] = {
    "question_context_answer": {
        "source": "question: {question}\ncontext: {context}\n",
        "target": "the answer to the question given the context is {labels}.",
        "labels": {"field": "answer", "values": ("yes", "no", "maybe")},
    },
    "text_hallmarks": {
        "source": "{text}\n",
        "target": "the hallmarks of cancer in this text are {labels}.",
        "labels": {"field": "hallmarks", "values": HALLMARKS, "several": True},
    },
    "source_target": {"source": "{source}\n", "target": "{target}"},
}
