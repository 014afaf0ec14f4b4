"""Options of the commands of ``feldspar corpus``."""

from enum import StrEnum
from typing import Annotated

import typer


class Preset(StrEnum):
    """The way in which pairs are found."""

    VERIFIED = "verified"
    SLIMPAJAMA = "slimpajama"


class Scope(StrEnum):
    """Between which documents."""

    GLOBAL = "global"
    LOCAL = "local"


class Cluster(StrEnum):
    """For what one document stands."""

    COMPONENTS = "components"
    REPRESENTATIVE = "representative"


class EngineName(StrEnum):
    """The engine that runs the work."""

    SERIAL = "serial"
    PROCESSES = "processes"
    RAY = "ray"


Memory = Annotated[
    str,
    typer.Option(
        metavar="2GB",
        help="What a process may hold beside the interpreter and its libraries (about 180 MB, with "
        "numba 260); more spills to disk, with equal results.",
    ),
]
Short = Annotated[
    int, typer.Option(min=0, help="Drop documents of fewer cleaned characters; 0 keeps all.")
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="serial: this process; processes: a pool on this machine; ray: the cluster at "
        "RAY_ADDRESS, else one on this machine. The result is the same for any.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Units of work at a time; the result is the same for any. 0: one a core (dedup: where "
        "the input is large enough to gain by it).",
    ),
]
TextField = Annotated[
    str, typer.Option(metavar="NAME", help="Field of the text; with dots inside others.")
]
IdField = Annotated[
    str, typer.Option(metavar="NAME", help="Field that names a document, where there is one.")
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="One source for all documents; default: the field source, or else the file's name.",
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        metavar="first|longest|source_priority|field:NAME",
        help="Which document of a cluster is kept; field:NAME: the highest value of a field.",
    ),
]
ClusterOption = Annotated[
    Cluster,
    typer.Option(
        help="components: one survivor for all that pairs connect; representative: a document "
        "is dropped only when itself similar to its survivor.",
    ),
]
SkipBad = Annotated[
    int, typer.Option(min=0, metavar="N", help="Leave out up to N bad records, and count them.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
