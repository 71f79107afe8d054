"""How far one stage has come: its layers, its image config, its arguments, and the key of all that was done."""

from __future__ import annotations

import copy

from kapelle.images.build.cache import key_of
from kapelle.images.types import Image
from kapelle.light import Any

COMMENT = "kapelle"  # of a history row that a build made


class StageState:
    def __init__(
        self, layers: tuple[str, ...], config: dict[str, Any], key: str, history: list[dict[str, Any]]
    ) -> None:
        self.layers = layers  # diff-IDs, lowest first
        self.config = config  # the "config" part of an OCI image config
        self.key = key  # of the files alone: settings are no part of it
        self.history = history
        self.arguments: dict[str, str | None] = {}
        self.shell = list(config.get("Shell") or ["/bin/sh", "-c"])
        self.author = ""
        self.command_set = False  # CMD in this stage
        self.steps: list[tuple[str, str]] = []  # key and layer of what was made over the base image

    @classmethod
    def scratch(cls) -> StageState:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return cls((), {"Env": [path]}, key_of("scratch"), [])

    @classmethod
    def of_image(cls, image: Image) -> StageState:
        config = copy.deepcopy(dict(image.config.get("config") or {}))
        history = list(image.config.get("history") or [])
        if len([h for h in history if not h.get("empty_layer")]) != len(image.layers):
            history = [{"created_by": f"layer {d}"} for d in image.layers]
        return cls(image.layers, config, key_of("layers", *image.layers), history)

    def child(self) -> StageState:
        """The start of a stage that is FROM this one."""
        made = StageState(self.layers, copy.deepcopy(self.config), self.key, list(self.history))
        made.arguments = dict(self.arguments)
        made.steps = list(self.steps)
        return made

    def env(self) -> dict[str, str]:
        return {row.partition("=")[0]: row.partition("=")[2] for row in self.config.get("Env") or ()}

    def set_env(self, values: dict[str, str]) -> None:
        self.config["Env"] = [f"{k}={v}" for k, v in {**self.env(), **values}.items()]

    def lookup(self, name: str) -> str | None:
        """A variable as instructions see it: ENV over ARG."""
        found = self.env().get(name)
        return found if found is not None else self.arguments.get(name)

    def take_triggers(self) -> list[str]:
        triggers = list(self.config.pop("OnBuild", None) or ())
        return triggers

    def meaning(self, *parts: Any) -> str:
        """The key of a next step."""
        return key_of(self.key, *parts)

    def add_layer(self, diff_id: str, keys: list[str], created_by: str) -> None:
        self.layers = (*self.layers, diff_id)
        self.key = key_of("layers", *self.layers)  # what is in the files, however they were made
        self.steps += [(key, diff_id) for key in keys]
        self.history.append({"created_by": created_by, "comment": COMMENT})

    def add_setting(self, created_by: str) -> None:
        self.history.append({"created_by": created_by, "comment": COMMENT, "empty_layer": True})
