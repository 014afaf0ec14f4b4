"""The three products of a sparse matrix in LLVM's intermediate code.

A matrix is stored by groups of G rows that keep the same columns (``layout``): ``begins`` cuts
``columns`` into the groups' parts, panel by panel, and ``values`` holds G values for each column.
Activations (tokens, features) are packed in tiles of some tokens, each (features, tile): a tile
stays in the second-level cache, a panel of it in the first, and sums or rows of a tile stay in
registers.

* ``accumulate``: for each group, the sums of its rows over its columns stay in registers. It gives
  the output from the input, and the input's gradient from that of the output by the transposed
  matrix.
* ``spread``: for each group, its rows stay in registers and are added to the group's columns. It
  gives the input's gradient by the matrix itself. Each load serves G sums.
* ``correlate``: for each kept value, the sum over all tokens of output gradient times input.

The order of additions in each result depends on the matrix and on the number of tokens only, never
on the number of threads: threads share tiles, or for ``correlate`` groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from feldspar.sparsity.kernels.builder import (
    ADDRESSES,
    FLOATS,
    INDEX,
    INT,
    INTS,
    Builder,
    index,
)
from feldspar.sparsity.kernels.registers import GROUP, Registers

CHAINS = 4
"""Columns of one row that are correlated at a time."""
TILES_AT_ONCE = 4
"""Tiles over which one row is correlated before the next row."""


def all_products(registers: Registers, triple: str, on_threads: bool) -> ir.Module:
    """Return the code of all products: ``NAME_G(arguments, thread, threads)`` for G of 1 and 4.

    With ``on_threads`` each has a form ``NAME_G_on_threads(arguments)`` for the threads of OpenMP.
    """
    module = ir.Module("sparse_products")
    module.triple = triple
    for rows in (1, GROUP):
        _through_tiles(module, registers, f"accumulate_{rows}", _accumulate(rows))
        _through_tiles(module, registers, f"spread_{rows}", _spread(rows))
    _correlate_one(module, registers)
    _correlate_four(module, registers)
    if on_threads:
        _add_threads(module)
    return module


def _add_threads(module: ir.Module) -> None:
    """Add to each product a form that asks OpenMP for its thread and their number."""
    products = [function for function in module.functions if not function.is_declaration]
    ask = ir.FunctionType(INT, [])
    thread = ir.Function(module, ask, "omp_get_thread_num")
    threads = ir.Function(module, ask, "omp_get_num_threads")
    for product in products:
        kind = ir.FunctionType(ir.VoidType(), [ADDRESSES])
        function = ir.Function(module, kind, f"{product.name}_on_threads")
        code = ir.IRBuilder(function.append_basic_block())
        code.call(product, [function.args[0], code.call(thread, []), code.call(threads, [])])
        code.ret_void()


Inner = Callable[[Builder, Registers, Any, Any, "Matrix"], None]


@dataclass(frozen=True)
class Matrix:
    """Pointers of a matrix in compressed form."""

    panels: Any
    groups: Any
    begins: Any
    columns: Any
    values: Any


class Arguments:
    """The arguments of a call: addresses and counts in an array of int64."""

    def __init__(self, build: Builder, pointer: Any) -> None:
        self._build, self._pointer, self._next = build, pointer, 0

    def count(self) -> Any:
        """Return the next argument as a number."""
        place = self._build.code.gep(self._pointer, [index(self._next)])
        self._next += 1
        return self._build.code.load(place)

    def floats(self) -> Any:
        """Return the next argument as the address of float32 values."""
        return self._build.code.inttoptr(self.count(), FLOATS)

    def ints(self) -> Any:
        """Return the next argument as the address of int32 values."""
        return self._build.code.inttoptr(self.count(), INTS)

    def matrix(self) -> Matrix:
        """Return the next five arguments as a matrix."""
        return Matrix(self.count(), self.count(), self.ints(), self.ints(), self.floats())


def _begin(
    module: ir.Module, registers: Registers, name: str
) -> tuple[Builder, Arguments, Any, Any]:
    """Begin a function; return its builder, arguments, thread and number of threads."""
    build = Builder(module, name, [ADDRESSES, INT, INT], registers.lanes)
    pointer, thread, threads = build.arguments
    thread, threads = (build.code.sext(value, INDEX) for value in (thread, threads))
    return build, Arguments(build, pointer), thread, threads


def _share(build: Builder, count: Any, thread: Any, threads: Any) -> tuple[Any, Any]:
    """Return begin and end of a thread's share of ``count`` items."""
    ends = [
        build.code.sdiv(build.times(count, place), threads)
        for place in (thread, build.sum(thread, 1))
    ]
    return ends[0], ends[1]


def _through_tiles(module: ir.Module, registers: Registers, name: str, inner: Inner) -> None:
    """Pack each tile, multiply, and unpack the result.

    Arguments: source and its last tile (padded with zeros), target and its last tile, number of
    tiles, tiles without padding, features of source and target, start values of the target's
    features (or 0), packed source, room for a packed tile of the target for each thread, matrix.
    """
    build, given, thread, threads = _begin(module, registers, name)
    code, tile = build.code, registers.tile
    source, last_source, target, last_target = (given.floats() for _ in range(4))
    tiles, whole, n_source, n_target = (given.count() for _ in range(4))
    start = given.floats()
    packed, room = given.floats(), given.floats()
    matrix = given.matrix()
    has_start = code.icmp_unsigned("!=", code.ptrtoint(start, INDEX), index(0))
    own = code.gep(room, [build.times(thread, build.times(n_target, tile))])

    def one(i: Any) -> None:
        is_whole = code.icmp_signed("<", i, whole)
        first = build.times(i, tile)
        read = code.select(is_whole, code.gep(source, [build.times(first, n_source)]), last_source)
        write = code.select(is_whole, code.gep(target, [build.times(first, n_target)]), last_target)
        held = code.gep(packed, [build.times(first, n_source)])
        _repack(build, registers, n_source, read, held, packs=True)
        _start(build, registers, own, n_target, has_start, start)
        inner(build, registers, held, own, matrix)
        _repack(build, registers, n_target, own, write, packs=False)

    build.loop(*_share(build, tiles, thread, threads), one)
    code.ret_void()


def _within(build: Builder, i: Any, features: Any) -> Any:
    """Return the first of a vector's features: the last vector overlaps the one before it."""
    last = build.sum(features, -build.lanes)
    return build.code.select(build.code.icmp_signed("<", i, last), i, last)


def _repack(
    build: Builder, registers: Registers, features: Any, source: Any, target: Any, packs: bool
) -> None:
    """Turn (tile, features) into (features, tile), or back."""
    lanes, tile = registers.lanes, registers.tile

    def by_token(i: Any, t: int, k: int) -> Any:
        return build.sum(build.times(features, t + k), i)

    def by_feature(i: Any, t: int, k: int) -> Any:
        return build.sum(build.times(i, tile), k * tile + t)

    read, write = (by_token, by_feature) if packs else (by_feature, by_token)

    def some(i: Any) -> None:
        i = _within(build, i, features)
        for t in range(0, tile, lanes):
            vectors = [build.load(source, read(i, t, k)) for k in range(lanes)]
            for k, vector in enumerate(build.transposed(vectors)):
                build.store(vector, target, write(i, t, k))

    build.loop(index(0), features, some, step=lanes)


def _start(
    build: Builder, registers: Registers, own: Any, features: Any, has_start: Any, start: Any
) -> None:
    """Fill a packed tile with the start value of each feature, or with zeros."""
    code = build.code

    def fill(value_of: Callable[[Any], Any]) -> None:
        def one(i: Any) -> None:
            value = value_of(i)
            for t in range(0, registers.tile, registers.lanes):
                build.store(value, own, build.sum(build.times(i, registers.tile), t))

        build.loop(index(0), features, one)

    with code.if_else(has_start) as (given, absent):
        with given:
            fill(lambda i: build.load_everywhere(start, i))
        with absent:
            fill(lambda i: build.zeros())


def _each_group(
    build: Builder,
    matrix: Matrix,
    share: tuple[Any, Any],
    body: Callable[[Any, Any, Any], None],
) -> None:
    """Call ``body(group, begin, end)`` for a share of the groups, panel by panel.

    Begin and end are those of the group's columns in the panel.
    """

    def panel(p: Any) -> None:
        first = build.times(p, matrix.groups)

        def group(g: Any) -> None:
            place = build.sum(first, g)
            begin, end = (build.load_int(matrix.begins, build.sum(place, k)) for k in (0, 1))
            body(g, begin, end)

        build.loop(*share, group)

    build.loop(index(0), matrix.panels, panel)


def _accumulate(rows: int) -> Inner:
    """Return the code that adds to each row of ``target`` its columns of ``source``."""

    def inner(
        build: Builder, registers: Registers, source: Any, target: Any, matrix: Matrix
    ) -> None:
        def group(i: Any, begin: Any, end: Any) -> None:
            at = build.times(i, rows * registers.tile)
            vectors = range(0, registers.tile, registers.lanes)
            together = max(registers.sums // rows, 1)
            for first in range(0, len(vectors), together):
                part(at, begin, end, vectors[first : first + together])

        def part(at: Any, begin: Any, end: Any, vectors: range) -> None:
            """Add for as many vectors of the tile as the registers hold."""
            places = [(row, t) for row in range(rows) for t in vectors]
            offsets = [build.sum(at, row * registers.tile + t) for row, t in places]

            def column(k: Any, *sums: Any) -> list[Any]:
                start = build.load_int(matrix.columns, k)
                inputs = {t: build.load(source, build.sum(start, t)) for t in vectors}
                values = [
                    build.load_everywhere(matrix.values, build.sum(build.times(k, rows), row))
                    for row in range(rows)
                ]
                return [
                    build.fused_multiply_add(values[row], inputs[t], total)
                    for (row, t), total in zip(places, sums, strict=True)
                ]

            sums = [build.load(target, offset) for offset in offsets]
            sums = build.loop(begin, end, column, sums)
            for offset, total in zip(offsets, sums, strict=True):
                build.store(total, target, offset)

        _each_group(build, matrix, (index(0), matrix.groups), group)

    return inner


def _spread(rows: int) -> Inner:
    """Return the code that adds each row of ``source`` to its columns of ``target``."""

    def inner(
        build: Builder, registers: Registers, source: Any, target: Any, matrix: Matrix
    ) -> None:
        def group(i: Any, begin: Any, end: Any) -> None:
            at = build.times(i, rows * registers.tile)
            held = [
                [
                    build.load(source, build.sum(at, row * registers.tile + t * registers.lanes))
                    for t in range(registers.vectors)
                ]
                for row in range(rows)
            ]

            def column(k: Any) -> None:
                begin = build.load_int(matrix.columns, k)
                values = [
                    build.load_everywhere(matrix.values, build.sum(build.times(k, rows), row))
                    for row in range(rows)
                ]
                for t in range(registers.vectors):
                    place = build.sum(begin, t * registers.lanes)
                    total = build.load(target, place)
                    for value, row in zip(values, held, strict=True):
                        total = build.fused_multiply_add(value, row[t], total)
                    build.store(total, target, place)

            build.loop(begin, end, column)

        _each_group(build, matrix, (index(0), matrix.groups), group)

    return inner


def _correlate_four(module: ir.Module, registers: Registers) -> None:
    """Arguments: packed inputs and output gradients, tiles, features of both, matrix.

    The matrix' ``values`` are the result, which is added to. Rows of one tile stay in registers.
    """
    build, given, thread, threads = _begin(module, registers, f"correlate_{GROUP}")
    inputs, gradients = given.floats(), given.floats()
    tiles, n_in, n_out = (given.count() for _ in range(3))
    matrix = given.matrix()
    share = _share(build, matrix.groups, thread, threads)
    tile, offsets = registers.tile, range(0, registers.tile, registers.lanes)

    def one(i: Any) -> None:
        first = build.times(i, tile)
        read = build.code.gep(inputs, [build.times(first, n_in)])
        rows_of_tile = build.code.gep(gradients, [build.times(first, n_out)])

        def group(g: Any, begin: Any, end: Any) -> None:
            at = build.times(g, GROUP * tile)
            rows = [
                [build.load(rows_of_tile, build.sum(at, row * tile + t)) for t in offsets]
                for row in range(GROUP)
            ]

            def column(k: Any) -> None:
                start = build.load_int(matrix.columns, k)
                sums: list[Any] = [build.zeros()] * GROUP
                for place, t in enumerate(offsets):
                    value = build.load(read, build.sum(start, t))
                    sums = [
                        build.fused_multiply_add(rows[row][place], value, sums[row])
                        for row in range(GROUP)
                    ]
                _add_four(build, sums, matrix.values, build.times(k, GROUP))

            build.loop(begin, end, column)

        _each_group(build, matrix, share, group)

    build.loop(index(0), tiles, one)
    build.code.ret_void()


def _correlate_one(module: ir.Module, registers: Registers) -> None:
    """Do the same for rows that are alone: four columns at a time, several tiles at once."""
    build, given, thread, threads = _begin(module, registers, "correlate_1")
    code, tile = build.code, registers.tile
    inputs, gradients = given.floats(), given.floats()
    tiles, n_in, n_out = (given.count() for _ in range(3))
    matrix = given.matrix()
    share = _share(build, matrix.groups, thread, threads)
    offsets = range(0, tile, registers.lanes)

    def some(first: Any) -> None:
        beyond = build.sum(first, TILES_AT_ONCE)
        last = code.select(code.icmp_signed("<", beyond, tiles), beyond, tiles)

        def row(g: Any, begin: Any, end: Any) -> None:
            at = build.times(g, tile)

            def columns(k: Any, count: int) -> list[Any]:
                starts = [build.load_int(matrix.columns, build.sum(k, j)) for j in range(count)]

                def one(i: Any, *sums: Any) -> list[Any]:
                    base = build.times(i, tile)
                    read = code.gep(inputs, [build.times(base, n_in)])
                    own = code.gep(gradients, [build.sum(build.times(base, n_out), at)])
                    totals = list(sums)
                    for t in offsets:
                        gradient = build.load(own, index(t))
                        totals = [
                            build.fused_multiply_add(
                                build.load(read, build.sum(start, t)), gradient, total
                            )
                            for start, total in zip(starts, totals, strict=True)
                        ]
                    return totals

                return build.loop(first, last, one, [build.zeros()] * count)

            def several(k: Any) -> None:
                _add_four(build, columns(k, CHAINS), matrix.values, k)

            def alone(k: Any) -> None:
                (total,) = columns(k, 1)
                sums = build.sums_of_four([total, *[build.zeros()] * 3])
                value = code.extract_element(sums, ir.Constant(INT, 0))
                place = code.gep(matrix.values, [k])
                code.store(code.fadd(code.load(place), value), place)

            even = build.sum(begin, code.and_(code.sub(end, begin), index(-CHAINS)))
            build.loop(begin, even, several, step=CHAINS)
            build.loop(even, end, alone)

        _each_group(build, matrix, share, row)

    build.loop(index(0), tiles, some, step=TILES_AT_ONCE)
    code.ret_void()


def _add_four(build: Builder, vectors: list[Any], values: Any, at: Any) -> None:
    """Add the sums over lanes of four vectors to four values from ``at`` on."""
    sums = build.sums_of_four(vectors)
    code = build.code
    place = code.bitcast(code.gep(values, [at]), ir.PointerType(sums.type))
    code.store(code.fadd(code.load(place, align=4), sums), place, align=4)
