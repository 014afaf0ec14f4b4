"""Average precision by pycocotools: the twelve numbers of COCO, for boxes and for masks."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np

from feldspar.core.errors import missing_extra
from feldspar.core.files import write_atomically
from feldspar.vision.detection.coco import CocoSplit, mask_coder, run_lengths, without_mask

TWELVE = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""Names of the numbers in the order of pycocotools. One is -1 where no object has its size."""
Kind = Literal["bbox", "segm"]
Result = dict[str, Any]
"""An object that was found, as COCO's results file has it: image_id, category_id, bbox (left, top,
width, height), score, and segmentation where there are masks."""


def average_precision(split: CocoSplit, results: list[Result], kind: Kind) -> dict[str, float]:
    """Return the twelve numbers of found objects by name."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise missing_extra("pycocotools", "detection") from None
    if not results and not any(image.learned for image in split.images):
        return dict.fromkeys(TWELVE, -1.0)
    with redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = truth_of(split, with_masks=kind == "segm")
        truth.createIndex()
        found: Any = COCO()
        found.dataset = {
            "images": truth.dataset["images"],
            "categories": truth.dataset["categories"],
            "annotations": [_complete(number, own) for number, own in enumerate(results, start=1)],
        }
        found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(TWELVE, map(float, evaluation.stats), strict=True))


def truth_of(split: CocoSplit, with_masks: bool) -> dict[str, Any]:
    """Return what a split annotates in COCO's form, without the objects that reading left out."""
    objects: list[dict[str, Any]] = []
    for image in split.images:
        for item in image.objects:
            entry: dict[str, Any] = {
                "id": len(objects) + 1,
                "image_id": image.id,
                "category_id": split.category_ids[item.label - 1],
                "bbox": list(item.annotated),
                "iscrowd": int(item.crowd),
                "area": item.area,
            }
            runs = None
            if item.segmentation is not None and (with_masks or item.area is None):
                runs = run_lengths(item.segmentation, image.height, image.width)
            if with_masks:
                if runs is None:
                    raise without_mask(image, split)
                entry["segmentation"] = runs
            if item.area is None:
                width, height = item.annotated[2:]
                entry["area"] = width * height if runs is None else float(mask_coder().area(runs))
            objects.append(entry)
    return {
        "images": [
            {"id": image.id, "height": image.height, "width": image.width} for image in split.images
        ],
        "categories": [
            {"id": key, "name": name}
            for key, name in zip(split.category_ids, split.classes, strict=True)
        ],
        "annotations": objects,
    }


def _complete(number: int, result: Result) -> dict[str, Any]:
    """Add what the evaluator reads of a found object: id, area, and that it is no crowd."""
    area = result["bbox"][2] * result["bbox"][3]
    if "segmentation" in result:
        area = float(mask_coder().area(result["segmentation"]))
    return result | {"id": number, "area": area, "iscrowd": 0}


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask (height, width) of 0 and 1 as run lengths that JSON can hold."""
    runs = mask_coder().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode("ascii")}


def write_results(path: Path, results: list[Result]) -> None:
    """Write found objects as COCO's results file, which pycocotools' ``loadRes`` reads."""
    write_atomically(path, json.dumps(results))
