"""Write and read tensors in safetensors files; each process writes the part that it owns.

A file holds whole tensors or boxes of them. For a box, the file's header (key ``boxes``) gives the
full shape and the start of the box. So any number of processes can read what any other number
wrote: each process reads the parts of boxes that overlap with its own. A file from one process is
plain safetensors.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard

from feldspar.core.errors import InternalError, RunError
from feldspar.runtime.collectives import is_first, rank, world_size
from feldspar.runtime.tensor_file import LazyTensors, TensorFile, TensorHeader, save_tensors

BOXES, ALIASES = "boxes", "aliases"


@dataclass(frozen=True)
class Box:
    """Part of a tensor that begins at ``start`` and has the shape ``size``."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    def overlap(self, other: "Box") -> "Box | None":
        """Return the common part of two boxes, or None."""
        sides = list(zip(self.start, self.size, other.start, other.size, strict=True))
        start = tuple(max(a, b) for a, _, b, _ in sides)
        size = tuple(min(a + m, b + n) - s for (a, m, b, n), s in zip(sides, start, strict=True))
        return Box(start, size) if all(n > 0 for n in size) else None

    def within(self, outer: "Box") -> tuple[slice, ...]:
        """Return the slices that cut this box out of a tensor that holds ``outer``."""
        return tuple(
            slice(a - b, a - b + n)
            for a, b, n in zip(self.start, outer.start, self.size, strict=True)
        )


@dataclass(frozen=True)
class LastRows:
    """The last rows of a split tensor: each process holds those among its own rows.

    The number of rows on a process is then not the one by which torch splits tensors.
    """

    tensor: DTensor
    first: int
    """The first row on this process, counted from the first of the last rows."""

    @classmethod
    def of(cls, whole: DTensor, first_row: int) -> "LastRows":
        """Return the rows of ``whole`` from ``first_row`` on, in the same memory.

        Raises InternalError unless ``whole`` is split by rows.
        """
        local, box = local_part(whole)
        if box.size[1:] != tuple(whole.shape[1:]):
            raise InternalError(f"a tensor is split in an unknown way: {whole.placements}")
        shape = torch.Size((whole.shape[0] - first_row, *whole.shape[1:]))
        rows = DTensor.from_local(
            local[max(0, first_row - box.start[0]) :],
            whole.device_mesh,
            whole.placements,
            run_check=False,
            shape=shape,
            stride=whole.stride(),
        )
        return cls(rows, max(0, box.start[0] - first_row))

    @property
    def shape(self) -> torch.Size:
        """The shape of all of the last rows."""
        return self.tensor.shape


def local_part(tensor: torch.Tensor | LastRows) -> tuple[torch.Tensor, Box]:
    """Return this process's part of a tensor, and its box."""
    if isinstance(tensor, LastRows):
        local = tensor.tensor.to_local().detach()
        return local, Box((tensor.first, *(0,) * (local.dim() - 1)), tuple(local.shape))
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor, Box((0,) * tensor.dim(), tuple(tensor.shape))
    start, size = [0] * tensor.dim(), list(tensor.shape)
    coordinates = tensor.device_mesh.get_coordinate() or ()
    for axis, (placement, place) in enumerate(zip(tensor.placements, coordinates, strict=True)):
        if isinstance(placement, Shard):
            rows = size[placement.dim]
            chunk = ceil(rows / tensor.device_mesh.size(axis))
            first = min(place * chunk, rows)
            start[placement.dim] += first
            size[placement.dim] = min(chunk, rows - first)
    local = tensor.to_local()
    if local.shape != tuple(size):
        raise InternalError(f"a tensor is split in an unknown way: {tensor.placements}")
    return local, Box(tuple(start), tuple(size))


def _writes(tensor: torch.Tensor | LastRows) -> bool:
    """Tell whether this process is the first of those that hold the same part."""
    if isinstance(tensor, LastRows):
        tensor = tensor.tensor
    if not isinstance(tensor, DTensor):
        return is_first()
    coordinates = tensor.device_mesh.get_coordinate() or ()
    return all(
        place == 0 or not isinstance(placement, Replicate)
        for place, placement in zip(coordinates, tensor.placements, strict=True)
    )


def write_tensors(
    folder: Path, stem: str, tensors: Mapping[str, torch.Tensor | LastRows]
) -> Path | None:
    """Write this process's part of ``tensors``; return the file, or None if the part is empty.

    Raises SetupError if the system refuses to write.
    """
    parts, boxes, aliases = {}, {}, {}
    names_by_memory: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        local, box = local_part(tensor)
        if not _writes(tensor) or (local.numel() == 0 and not is_first()):
            continue
        memory = (local.data_ptr(), local.shape, local.stride(), local.dtype)
        first = names_by_memory.setdefault(memory, name) if local.numel() else name
        if first != name:
            aliases[name] = first
            continue
        parts[name] = local.contiguous()
        if box.size != tuple(tensor.shape):
            boxes[name] = {"shape": list(tensor.shape), "start": list(box.start)}
    if not parts and not is_first():
        return None
    in_parts = any(isinstance(value, DTensor | LastRows) for value in tensors.values())
    split = world_size() > 1 and in_parts
    suffix = f"-rank{rank():05d}" if split else ""
    path = folder / f"{stem}{suffix}.safetensors"
    header = {BOXES: json.dumps(boxes)} if boxes else {}
    header |= {ALIASES: json.dumps(aliases)} if aliases else {}
    save_tensors(parts, path, header)
    return path


class TensorFiles(LazyTensors):
    """Read tensors, whole or in part, from files of ``write_tensors``; names are sorted."""

    def __init__(self, paths: list[Path]) -> None:
        self._places: dict[str, list[tuple[TensorFile, str, Box]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            file = TensorFile(path)
            boxes = json.loads(file.metadata.get(BOXES, "{}"))
            for name in file:
                size = file.header(name).shape
                box = boxes.get(name, {"shape": size, "start": (0,) * len(size)})
                self._shapes[name] = tuple(box["shape"])
                place = (file, name, Box(tuple(box["start"]), size))
                self._places.setdefault(name, []).append(place)
            for alias, name in json.loads(file.metadata.get(ALIASES, "{}")).items():
                self._shapes[alias] = self._shapes[name]
                self._places.setdefault(alias, []).append(self._places[name][-1])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._shapes))

    def __len__(self) -> int:
        return len(self._shapes)

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        file, stored, _ = self._places[name][0]
        return TensorHeader(self._shapes[name], file.header(stored).dtype)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a whole tensor, on the CPU."""
        header = self.header(name)
        whole = torch.empty(header.shape, dtype=header.dtype)
        self.read_into(name, whole)
        return whole

    def read_into(self, name: str, tensor: torch.Tensor | LastRows) -> None:
        """Fill this process's part of ``tensor``.

        Raises RunError if the stored tensor has another shape or type, or does not cover the part.
        """
        if self._shapes[name] != tuple(tensor.shape):
            raise RunError(
                f"the checkpoint has {name} in another shape",
                found=self._shapes[name],
                allowed=str(tuple(tensor.shape)),
            )
        local, wanted = local_part(tensor)
        missing = local.numel()
        for file, stored, box in self._places[name]:
            shared = box.overlap(wanted)
            if shared is None:
                continue
            part = _read_part(file, stored, shared.within(box))
            if part.dtype != local.dtype:
                raise RunError(
                    f"the checkpoint has {name} in another type",
                    found=part.dtype,
                    allowed=str(local.dtype),
                )
            local[shared.within(wanted)].copy_(part)
            missing -= part.numel()
        if missing:
            raise RunError(f"the checkpoint lacks {missing:,} of the entries of {name}")


def _read_part(file: TensorFile, name: str, cut: tuple[slice, ...]) -> torch.Tensor:
    """Read a box of a stored tensor; rows outside of it are not read."""
    if not cut:
        return file[name]
    return file.rows(name, cut[0].start, cut[0].stop)[(slice(None), *cut[1:])]


def copy_part(whole: torch.Tensor, target: torch.Tensor) -> None:
    """Copy this process's part of a tensor that each process has as a whole."""
    local, box = local_part(target)
    local.copy_(whole[box.within(Box((0,) * whole.dim(), tuple(whole.shape)))])
