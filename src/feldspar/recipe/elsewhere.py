"""Keys that a reader may expect, by names that papers use or older recipes had, and their place."""

ELSEWHERE = {
    "model.iso_flop": "it is named model.sparse_iso_flop",
    "model.qk_norm": "it is named model.query_key_norm",
    "corpus.split.group_by": (
        "each source names the field of its groups itself, as corpus.sources.NAME.group_field"
    ),
    "shards.end_of_document": (
        "every document ends with a token; tokenizer.end_of_document says with which one"
    ),
    "evaluation.tasks": (
        "tasks are measured when a model is trained: feldspar evaluate RUN --tasks bundled"
    ),
    "runtime.workers": (
        "results do not depend on it, so it is an option of the commands that build: "
        "feldspar tokens build RECIPE --workers 2"
    ),
}
"""By dotted key, with N for an index and NAME for a name: where its setting is."""
