"""Everything that Kapelle keeps, removed: what comes before uninstalling it."""

from __future__ import annotations

import os

from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context


def remove_everything(context: Context) -> None:
    """Bring all projects down with their volumes, then remove images and all folders. Settings (config.toml) stay.

    It runs where an ordinary user's files of other ids can be removed: in the user namespace of the command.
    """
    from kapelle.images import trees
    from kapelle.model.project import Project
    from kapelle.plan.down import DownOptions, down
    from kapelle.state import store

    engine = context.engine()
    options = DownOptions(remove_orphans=True, volumes=True, from_files=False)
    for name in store.names_in(context.paths.projects):
        project = Project(name, context.cwd, (), ())
        with context.locked(name):
            plan = down(project, engine.observe(name), options)
            if plan.nodes:
                context.run_plan(plan, project)
            if not context.dry_run:
                engine.settle(name)
    paths = context.paths
    for place in dict.fromkeys((paths.data, paths.state, paths.run)):
        if not os.path.isdir(place):
            continue
        context.stdout.write(f"{'would remove' if context.dry_run else 'removed'} {place}\n")
        if not context.dry_run:
            trees.remove(place)
    if not context.dry_run:
        from kapelle import codecache

        codecache.remove()
        try:
            os.rmdir(os.path.dirname(paths.data))  # KAP_HOME, when nothing else is in it
        except OSError:
            pass
