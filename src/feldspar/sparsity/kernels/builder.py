"""Build functions of LLVM's intermediate code: loops, vectors of float32, transposes and sums.

The code uses vectors of the width that the processor has, so that one source serves AVX-512, AVX2
and NEON. All values in memory are float32 or int32, and all arithmetic of indices is int64.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

FLOAT, INDEX, INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
FLOATS, INTS, ADDRESSES = (ir.PointerType(kind) for kind in (FLOAT, INT, INDEX))


def index(value: int) -> ir.Constant:
    """Return a constant of the type of indices."""
    return ir.Constant(INDEX, value)


class Builder:
    """Builds one function; vectors have ``lanes`` values."""

    def __init__(self, module: ir.Module, name: str, kinds: Sequence[ir.Type], lanes: int) -> None:
        self.lanes = lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        self.code = ir.IRBuilder(self.function.append_basic_block())
        self.arguments = self.function.args
        self._module = module

    def load(self, pointer: Any, at: Any) -> Any:
        """Load a vector that begins at element ``at``."""
        place = self.code.gep(pointer, [at])
        return self.code.load(self.code.bitcast(place, ir.PointerType(self.vector)), align=4)

    def store(self, vector: Any, pointer: Any, at: Any) -> None:
        """Store a vector from element ``at`` on."""
        place = self.code.gep(pointer, [at])
        self.code.store(vector, self.code.bitcast(place, ir.PointerType(vector.type)), align=4)

    def load_int(self, pointer: Any, at: Any) -> Any:
        """Load an int32 as an index."""
        return self.code.sext(self.code.load(self.code.gep(pointer, [at])), INDEX)

    def load_everywhere(self, pointer: Any, at: Any) -> Any:
        """Load one value into all lanes."""
        value = self.code.load(self.code.gep(pointer, [at]))
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.code.insert_element(nothing, value, ir.Constant(INT, 0))
        return self.shuffle(first, nothing, [0] * self.lanes)

    def zeros(self) -> ir.Constant:
        """Return a vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def fused_multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once."""
        name = f"llvm.fma.v{self.lanes}f32"
        known = self._module.globals.get(name)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.code.call(known or ir.Function(self._module, kind, name), [a, b, c])

    def sum(self, *terms: Any) -> Any:
        """Return the sum of indices; Python's integers are constants."""
        total = None
        for term in terms:
            term = index(term) if isinstance(term, int) else term
            total = term if total is None else self.code.add(total, term)
        return total

    def times(self, a: Any, b: Any) -> Any:
        """Return the product of two indices; Python's integers are constants."""
        a, b = (index(value) if isinstance(value, int) else value for value in (a, b))
        return self.code.mul(a, b)

    def loop(
        self,
        begin: Any,
        end: Any,
        body: Callable[..., Sequence[Any] | None],
        carried: Sequence[Any] = (),
        step: int = 1,
    ) -> list[Any]:
        """Loop over begin, begin + step, ... below ``end``; return the last carried values.

        ``body(i, *carried)`` returns the carried values of the next round.
        """
        code, before = self.code, self.code.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        code.branch(head)
        code.position_at_end(head)
        i = code.phi(INDEX)
        i.add_incoming(begin, before)
        values = []
        for value in carried:
            phi = code.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        code.cbranch(code.icmp_signed("<", i, end), inside, after)
        code.position_at_end(inside)
        following = body(i, *values) or ()
        i.add_incoming(self.sum(i, step), code.block)
        for phi, value in zip(values, following, strict=True):
            phi.add_incoming(value, code.block)
        code.branch(head)
        code.position_at_end(after)
        return values

    def shuffle(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Return the lanes ``order`` of ``a`` followed by ``b``."""
        kind = ir.VectorType(INT, len(order))
        return self.code.shuffle_vector(a, b, ir.Constant(kind, list(order)))

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Transpose as many vectors as a vector has lanes."""
        n, current, half = self.lanes, list(rows), self.lanes // 2
        while half:
            following = list(current)
            for i in range(n):
                if i & half:
                    continue
                pair = current[i], current[i + half]
                low = [n + j - half if j & half else j for j in range(n)]
                high = [n + j if j & half else j + half for j in range(n)]
                following[i] = self.shuffle(*pair, low)
                following[i + half] = self.shuffle(*pair, high)
            current, half = following, half // 2
        return current

    def sums_of_four(self, vectors: Sequence[Any]) -> Any:
        """Return a vector of four values: the sums over the lanes of four vectors."""
        quarters, n = range(self.lanes // 4), self.lanes

        def add(a: Any, b: Any, *halves: list[tuple[int, int]]) -> Any:
            """Add two selections of lanes; the pairs are (lane of each four, vector)."""
            orders = [
                [lane + 4 * q + self.lanes * which for q in quarters for lane, which in half]
                for half in halves
            ]
            return self.code.fadd(*(self.shuffle(a, b, order) for order in orders))

        even, odd = [(0, 0), (0, 1), (2, 0), (2, 1)], [(1, 0), (1, 1), (3, 0), (3, 1)]
        first, second = add(*vectors[:2], even, odd), add(*vectors[2:], even, odd)
        low, high = [(0, 0), (1, 0), (0, 1), (1, 1)], [(2, 0), (3, 0), (2, 1), (3, 1)]
        total = add(first, second, low, high)
        while n > 4:
            n //= 2
            halves = [range(n), range(n, 2 * n)]
            total = self.code.fadd(*(self.shuffle(total, total, list(own)) for own in halves))
        return total
