"""Reads one stage of a job file: what runs, with which files, where."""

from __future__ import annotations

from typing import Any

import msgspec

from sparegrid.api import Need, Requires, StageSpec
from sparegrid.errors import BadInputError
from sparegrid.expect import nearest
from sparegrid.jobfile.check import Document
from sparegrid.jobfile.files import Files
from sparegrid.jobfile.form import NeedForm, RequiresForm, StageForm
from sparegrid.jobfile.items import ItemsReader, StageItemsRead
from sparegrid.kinds import KIND_PARAMS, CommandParams, CommandVariant, PythonParams
from sparegrid.messages import FileEntry
from sparegrid.template import ITEM, Template, check_names
from sparegrid.tomlfile import KeyPath
from sparegrid.units import DURATION_EXAMPLE, SIZE_EXAMPLE, parse_duration, parse_size

_WAYS = ("command", "shell", "python", "kind")
_COMMAND_KEYS = ("env", "stdin", "ok_codes", "max_log", "platforms")
_PYTHON_KEYS = ("args", "kwargs")


class StageReader:
    """Reads the stages of one document, which share the files they name."""

    def __init__(self, document: Document, files: Files) -> None:
        self._document = document
        self._files = files

    def read(self, form: StageForm, place: KeyPath, one_of_many: bool) -> StageSpec:
        """The stage at `place`.

        Raises:
            BadInputError: points at the line.
        """
        document = self._document
        if one_of_many and "name" not in self._written(place):
            document.refuse(place, "a stage has no name", "Each of several stages has one: name = …")
        kind, params = self._work(form, place)
        items = ItemsReader(document, self._files).read(form, place)
        builtin: Any = items.rename(msgspec.to_builtins(params))
        self._check_placeholders(builtin, items, place)
        checkpoint = form.checkpoint
        return StageSpec(
            name=form.name,
            kind=kind,
            params=builtin,
            items=items.items,
            needs=[self._need(need) for need in form.needs],
            inputs=self._inputs(form, place),
            outputs=form.outputs,
            requires=self._requires(form.requires, (*place, "requires")),
            retries=form.retries,
            timeout_s=self.seconds(form.timeout, (*place, "timeout")),
            restartable=form.restartable,
            checkpoint_signal=checkpoint.signal if checkpoint else "",
            checkpoint_files=checkpoint.files if checkpoint else "",
            grace_s=self._grace(form, place),
        )

    def seconds(self, value: float | str, path: KeyPath) -> float:
        """A duration in seconds. Raises BadInputError when a text is none."""
        try:
            return parse_duration(value) if isinstance(value, str) else value
        except ValueError:
            self._document.refuse_value(path, f"a duration like {DURATION_EXAMPLE}")

    def _bytes(self, value: int | str, path: KeyPath) -> int:
        try:
            return parse_size(value) if isinstance(value, str) else value
        except ValueError:
            self._document.refuse_value(path, f"a size like {SIZE_EXAMPLE}")

    def _written(self, place: KeyPath) -> dict[str, Any]:
        """The stage's table as it stands in the file."""
        found: Any = self._document.data
        for part in place:
            found = found[part]
        assert isinstance(found, dict), "the form was checked"
        return found

    # ---- what runs
    # ------------------------------------------------------------------------------------------------

    def _work(self, form: StageForm, place: KeyPath) -> tuple[str, Any]:
        """The kind and its parameters."""
        written = self._written(place)
        ways = [way for way in _WAYS if way in written]
        if not ways and form.platforms:
            ways = ["command"]
        if len(ways) != 1:
            self._document.refuse(
                (*place, ways[1]) if ways else place,
                f"{' and '.join(f'`{way}`' for way in ways) or 'nothing'} says what runs",
                "Give exactly one of `command`, `shell`, `python` and `kind`",
            )
        (way,) = ways
        self._refuse_foreign(written, place, way)
        if way == "kind":
            return form.kind, self._full_params(form, place)
        if way == "python":
            return "python", self._python(form, place)
        return "command", self._command(form, place)

    def _refuse_foreign(self, written: dict[str, Any], place: KeyPath, way: str) -> None:
        """Keys that belong to another way of saying what runs would have no effect."""
        foreign = {"command": _PYTHON_KEYS, "shell": _PYTHON_KEYS, "python": _COMMAND_KEYS}
        for key in foreign.get(way, _PYTHON_KEYS + _COMMAND_KEYS):
            if key in written:
                self._document.refuse((*place, key), f"`{key}` has no meaning beside `{way}`")
        if "params" in written and way != "kind":
            self._document.refuse(
                (*place, "params"), f"`params` has no meaning beside `{way}`", "Name a `kind`"
            )

    def _command(self, form: StageForm, place: KeyPath) -> CommandParams:
        if "command" in self._written(place) and not form.command:
            self._document.refuse_value((*place, "command"), "a program and its arguments")
        variants = {
            name: CommandVariant(argv=variant.command, shell=variant.shell, env=variant.env)
            for name, variant in form.platforms.items()
        }
        for name, variant in variants.items():
            if variant.argv and variant.shell:
                path = (*place, "platforms", name)
                self._document.refuse(
                    path, f"`command` and `shell` both say what runs on {name}", "Keep one of them"
                )
        return CommandParams(
            argv=form.command,
            shell=form.shell,
            env=form.env,
            stdin=form.stdin,
            ok_codes=form.ok_codes,
            platforms=variants,
            max_log_bytes=self._bytes(form.max_log, (*place, "max_log")),
        )

    def _python(self, form: StageForm, place: KeyPath) -> PythonParams:
        try:
            return msgspec.convert(
                {"function": form.python, "args": form.args, "kwargs": form.kwargs}, type=PythonParams
            )
        except msgspec.ValidationError:
            self._document.refuse_value((*place, "python"), "a function as `module:function`")

    def _full_params(self, form: StageForm, place: KeyPath) -> Any:
        """Parameters of a kind, checked where the kind is known here; others the coordinator or a device
        checks."""
        known = KIND_PARAMS.get(form.kind)
        if known is None:
            if not form.kind:
                self._document.refuse_value((*place, "kind"), "the name of a kind", "command, python, …")
            return form.params
        path: KeyPath = (*place, "params")
        for key in form.params:
            if key not in known.__struct_fields__:
                hint = nearest(key, known.__struct_fields__) or f"It has {', '.join(known.__struct_fields__)}"
                self._document.refuse((*path, key), f"kind {form.kind!r} has no parameter `{key}`", hint)
        try:
            return msgspec.convert(form.params, type=known)
        except msgspec.ValidationError as error:
            self._document.refuse(path, f"the parameters of kind {form.kind!r} are wrong: {error}")

    def _check_placeholders(self, params: Any, items: StageItemsRead, place: KeyPath) -> None:
        """Every `{{name}}` is a key of the items."""
        way = next((way for way in (*_WAYS, "platforms") if way in self._written(place)), "")
        try:
            names = Template(params).names
            check_names(names, items.keys)
        except BadInputError as error:
            self._document.refuse((*place, way), error.message, error.hint)
        if ITEM in names and items.bare:
            self._document.refuse(
                (*place, way),
                "{{item}} means nothing to a stage without `items`",
                "Use {{index}}, or give `items`",
            )

    # ---- with what, where
    # -----------------------------------------------------------------------------------------

    def _need(self, need: str | NeedForm) -> Need:
        if isinstance(need, str):
            return Need(stage=need)
        return Need(stage=need.stage, map=need.map, size=need.size, files=need.files, into=need.into)

    def _inputs(self, form: StageForm, place: KeyPath) -> list[FileEntry]:
        entries: dict[str, FileEntry] = {}
        for number, one in enumerate(form.inputs):
            path = (*place, "inputs", number)
            pattern, target = (one, None) if isinstance(one, str) else (one.source, one.path or None)
            for found in self._files.find(pattern, path, target):
                entry = self._files.entry(found, path)
                if entries.get(entry.path, entry) != entry:
                    self._document.refuse(
                        path,
                        f"two inputs are placed at {entry.path!r}",
                        f'Give one another path: {{ from = "{pattern}", path = "other/{entry.path}" }}',
                    )
                entries[entry.path] = entry
        return list(entries.values())

    def _requires(self, form: RequiresForm, path: KeyPath) -> Requires:
        plain = {name: getattr(form, name) for name in RequiresForm.__struct_fields__}
        for name in ("memory", "disk", "vram"):
            plain[name] = self._bytes(plain[name], (*path, name))
        return Requires(**plain)

    def _grace(self, form: StageForm, place: KeyPath) -> float:
        grace = self.seconds(form.grace, (*place, "grace"))
        if grace > 3600:
            self._document.refuse_value((*place, "grace"), "at most an hour")
        return grace
