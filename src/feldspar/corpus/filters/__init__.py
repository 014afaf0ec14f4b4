"""The filters of a corpus: one file a filter, named as the ``type`` of its settings."""
