"""Tables, figures and one-page HTML from JSON records; loads no torch."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Figure": "figures",
        "Series": "figures",
        "line_figure": "figures",
        "bar_figure": "figures",
        "heat_map": "figures",
        "Section": "page",
        "Table": "page",
        "render_page": "page",
        "run_page": "run_report",
        "write_corpus_report": "corpus_report",
        "write_run_report": "run_report",
        "write_scaling": "scaling_report",
    },
)
