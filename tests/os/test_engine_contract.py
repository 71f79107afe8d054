"""The native engine does what every engine must do: the contract of tests/unit on this kernel, as root."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from engine_contract import EngineContract

from kapelle.engines.native.engine import NativeEngine
from kapelle.state.paths import find

BUSYBOX = shutil.which("busybox") or ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and mounts")
@pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian's busybox-static)")
class TestNativeEngine(EngineContract):
    @pytest.fixture
    def image(self) -> str:
        return "box:1"

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[NativeEngine]:
        engine = NativeEngine(find({"KAP_HOME": str(tmp_path / "home")}), {})
        with engine.store.new_layer() as layer:
            root = Path(layer.diff) if hasattr(layer, "diff") else Path(str(layer)) / "diff"
            (root / "bin").mkdir(parents=True, exist_ok=True)
            shutil.copy(BUSYBOX, root / "bin/busybox")
            for name in ("sh", "sleep", "echo"):
                (root / "bin" / name).symlink_to("busybox")
            diff_id = engine.store.commit_layer(str(root))
        engine.store.put_image({"config": {"Env": ["PATH=/bin"]}, "os": "linux"}, (diff_id,), ("box:1",))
        yield engine
        engine.settle(self.name)
        engine.close()
