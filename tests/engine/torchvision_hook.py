"""Let torchvision be imported where its compiled operators do not load: its CUDA build beside torch's CPU build.

``scripts/install-engine`` puts it into the environment, with a ``.pth`` file that imports it at the start of every
process, those that vLLM spawns included (a ``sitecustomize`` would not do: Debian's Python has one of its own). Just
before the first import of torchvision, it tries the compiled library, and if that does not load declares the two
operators that the import asks for. Nothing in these tests calls them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _TorchvisionHook(MetaPathFinder):
    declared: Any = None  # torch forgets the operators when its Library object is collected

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = PathFinder.find_spec(fullname)
            if spec is not None and spec.origin is not None:
                self._declare(Path(spec.origin).parent)
        return None  # the usual finders import it

    def _declare(self, package: Path) -> None:
        torch = import_module("torch")
        try:
            torch.ops.load_library(package / "_C.so")
        except OSError:
            _TorchvisionHook.declared = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                _TorchvisionHook.declared.define(operator)


sys.meta_path.insert(0, _TorchvisionHook())
